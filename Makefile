# With MODULE_TOPDIR (as g.extension and the GRASS build pass it) this builds the toolset;
# without, it offers the commands of development: demo, test, bench.

ifdef MODULE_TOPDIR

PGM = i.ann.maskrcnn

SUBDIRS = lib i.ann.maskrcnn.train i.ann.maskrcnn.detect

include $(MODULE_TOPDIR)/include/Make/Dir.make
include manuals.mk

default: parsubdirs htmldir

# both modules print their manuals' headers by running, which needs the library
i.ann.maskrcnn.train i.ann.maskrcnn.detect: lib

install: installsubdirs
	$(INSTALL_DATA) $(HTMLDIR)/$(PGM).html $(INST_DIR)/docs/html/

else

include development.mk

endif
