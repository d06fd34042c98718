# With MODULE_TOPDIR (as g.extension and the GRASS build pass it) this builds the toolset;
# without, it offers the commands of development: demo, test, bench.

ifdef MODULE_TOPDIR

PGM = i.ann.maskrcnn

MODULES = i.ann.maskrcnn.train i.ann.maskrcnn.detect i.ann.unet.train i.ann.unet.predict i.ann.classifier.train \
  i.ann.classifier.predict
SUBDIRS = lib $(MODULES)

include $(MODULE_TOPDIR)/include/Make/Dir.make
include manuals.mk

default: parsubdirs htmldir

# modules print their manuals' headers by running, which needs the library
$(MODULES): lib

install: installsubdirs
	$(INSTALL_DATA) $(HTMLDIR)/$(PGM).html $(INST_DIR)/docs/html/

else

include development.mk

endif
