# Included by the Makefiles that build manuals. To write a line about the source, GRASS from 8.4 on looks at the Git
# repository of all addons and clones it; without a network or without git the installation fails. Where mkhtml.py and
# mkmarkdown.py can't import grass.script and know no directory of addons, as when GRASS itself is compiled, they do
# without. The modules, which print their part of the manual, are given another PYTHONPATH by GRASS.

manuals = $(HTMLDIR)/%.html $(MDDIR)/source/%.md

$(manuals): export PYTHONPATH :=
$(manuals): export GRASS_ADDON_BASE :=
