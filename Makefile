# The build of aloop. `make help` lists the targets, README.md says how to begin.
#
# Everything goes to $(BUILD), build/ by default. The variants debug and tsan have directories of their own below it, so
# that objects of different flags never meet; a change of flags, of compilers or of the list of files rebuilds what it
# touches. CFLAGS, CPPFLAGS, LDFLAGS and LDLIBS of the command line or the environment come after the project's own.
# SPDX-License-Identifier: MIT

VERSION := $(shell sed -n 's/^.define AL_VERSION "\(.*\)"/\1/p' core/aloop.h)

# ---- what may be set -------------------------------------------------------------------------------------------------

VARIANT ?= release#     release, debug (ASan, UBSan, assertions) or tsan
PREFIX  ?= /usr/local#  where install puts things, below DESTDIR
LUA     ?= lua5.4#      a plain Lua 5.4 for the project's own scripts
BUSTED  ?= busted
URING   ?= auto#        no: leave io_uring out, even if liburing is there
# LUA_INC=DIR LUA_LIB=FILE point at another Lua 5.4 (its headers; liblua.a or a shared library).
# LUA_SRC=DIR compiles the Lua sources in DIR with the flags of the variant instead: the way to have LUA_USE_APICHECK
# checked in debug builds and Lua itself under the sanitizers.

BUILD_release := build
BUILD_debug   := build/debug
BUILD_tsan    := build/tsan
BUILD ?= $(BUILD_$(strip $(VARIANT)))

PKG_CONFIG ?= pkg-config
ifeq ($(origin CC),default)
CC := gcc
endif
AR ?= ar

# ---- libraries -------------------------------------------------------------------------------------------------------

ifneq ($(LUA_SRC),)
LUA_INC := $(LUA_SRC)
lua_c   := $(filter-out %/lua.c %/luac.c %/onelua.c %/ltests.c,$(wildcard $(LUA_SRC)/*.c))
LUA_LIB := $(BUILD)/liblua.a
else
LUA_INC ?= $(firstword $(patsubst -I%,%,$(shell $(PKG_CONFIG) --cflags-only-I lua5.4 2>/dev/null)))
lua_dir := $(shell $(PKG_CONFIG) --variable=libdir lua5.4 2>/dev/null)
LUA_LIB ?= $(firstword $(wildcard $(addsuffix /liblua5.4.a,$(lua_dir))))
endif

ifneq ($(strip $(URING)),no)
have_uring  := $(shell $(PKG_CONFIG) --exists liburing 2>/dev/null && echo yes)
uring_libs  := $(if $(have_uring),$(shell $(PKG_CONFIG) --libs liburing 2>/dev/null))
endif
ssl_libs    := $(or $(shell $(PKG_CONFIG) --libs libssl libcrypto 2>/dev/null),-lssl -lcrypto)
ring_c  := $(wildcard core/io_uring.c core/uring_*.c)
plain_c := core/io_noring.c

# ---- flags -----------------------------------------------------------------------------------------------------------

warnings := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
defines  := -D_GNU_SOURCE=
includes := -Icore -Ibindings -I$(BUILD)/gen $(if $(LUA_INC),-I$(LUA_INC))

variant_release := -O2 -g
variant_debug   := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined \
                   -DAL_DEBUG -DLUA_USE_APICHECK
variant_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
variant_flags   := $(variant_$(strip $(VARIANT)))
ifeq ($(variant_flags),)
$(error VARIANT must be release, debug or tsan, not '$(strip $(VARIANT))')
endif

compile  = $(CC) -std=gnu11 -pthread $(variant_flags) $(warnings) $(defines) $(includes) $(CPPFLAGS) $(CFLAGS)
link     = $(CC) -pthread $(filter -fsanitize%,$(variant_flags)) $(CFLAGS) $(LDFLAGS)
sys_libs = $(uring_libs) -ldl $(LDLIBS)
# All of liblua, exported: a C module must find whatever of lua_* it was written for.
lua_libs = -Wl,-E -Wl,--whole-archive $(LUA_LIB) -Wl,--no-whole-archive -lm $(tsan_wrap)
comma := ,
tsan_wrap := $(if $(filter tsan,$(VARIANT)),-Wl$(comma)--wrap=__longjmp_chk)

# ---- files -----------------------------------------------------------------------------------------------------------

core_c     := $(filter-out $(ring_c) $(plain_c),$(wildcard core/*.c)) $(if $(have_uring),$(ring_c),$(plain_c))
bindings_c := $(filter-out bindings/main.c,$(wildcard bindings/*.c))
main_c     := $(wildcard bindings/main.c)
lua_files  := $(sort $(shell find lua -name '*.lua'))
program_c  := $(wildcard scripts/examples/*.c spec/c/*.c)
bench_all  := $(filter-out $(if $(have_uring),,%_uring.c),$(wildcard scripts/bench/c/*.c))
bench_c    := $(if $(bench_all),$(shell grep -lw '^int main' $(bench_all)))
c_dirs     := core bindings scripts/examples scripts/bench/c scripts/dev spec/c spec/c/module
c_files    := $(wildcard $(addsuffix /*.[ch],$(c_dirs)))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
pic = $(patsubst %.c,$(BUILD)/pic/%.o,$(1))
core_o     := $(call obj,$(core_c))
bindings_o := $(call obj,$(bindings_c)) $(BUILD)/obj/gen/embed.o
main_o     := $(call obj,$(main_c))
module_o   := $(call pic,$(core_c) $(bindings_c)) $(BUILD)/pic/gen/embed.o
lua_o      := $(patsubst $(LUA_SRC)/%.c,$(BUILD)/obj/lua/%.o,$(lua_c))

openssl_calls := $(BUILD)/gen/openssl_calls.h
core_lib := $(BUILD)/libaloop.a
lua_lib  := $(BUILD)/libaloop_lua.a
module   := $(BUILD)/aloop.so
aloop    := $(BUILD)/aloop

program = $(BUILD)/c/$(basename $(notdir $(1)))
embed_c  := $(filter embed.c embed_%,$(notdir $(program_c)))
embeds   := $(foreach c,$(program_c),$(if $(filter $(embed_c),$(notdir $(c))),$(call program,$(c))))
programs := $(filter-out $(embeds),$(foreach c,$(program_c),$(call program,$(c))))
benches  := $(patsubst scripts/bench/c/%.c,$(BUILD)/bench/%,$(bench_c))
bench_o  := $(call obj,$(filter-out $(bench_c),$(bench_all)))# what the programs share

# ---- targets ---------------------------------------------------------------------------------------------------------

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all lib module programs run test debug debug-test tsan tsan-test bench bench-programs install uninstall deps \
        clean help lint lint-gcc lint-clang lint-format lint-lines lint-cppcheck lint-luacheck lint-layers format \
        check-build FORCE
self = $(MAKE) --no-print-directory
# Hands in what may have been pointed elsewhere. What is installed is seen by the make that is started after it.
deps = CC='$(firstword $(CC))' LUA='$(strip $(LUA))' LUA_INC='$(LUA_INC)' PKG_CONFIG='$(PKG_CONFIG)' scripts/dev/deps.sh

all: lib module $(aloop) $(BUILD)/aloop.pc $(BUILD)/aloop-lua.pc ## build the interpreter, the module and the C library
lib: $(core_lib) ## build only the C library, libaloop.a
module: $(module) $(lua_lib)
programs: $(programs) $(embeds) ## build the C examples and the C programs of the specs

run: ## install what is missing, build, and let the HTTP example answer a request
	@$(deps) build libs run
	+@$(self) all
	@BUILD=$(BUILD) scripts/dev/run.sh

test: ## install what is missing, build, run every spec
	@$(deps) build libs test
	+@$(self) all programs
	@BUILD=$(BUILD) VARIANT=$(strip $(VARIANT)) LUA=$(strip $(LUA)) BUSTED=$(strip $(BUSTED)) scripts/dev/test.sh $(SPEC)

debug: ## build with ASan, UBSan, assertions and LUA_USE_APICHECK in build/debug
	+@$(self) VARIANT=debug all programs
debug-test: ## the specs on the debug build
	+@$(self) VARIANT=debug test

tsan: ## build with the thread sanitizer in build/tsan
	+@$(self) VARIANT=tsan all programs
tsan-test: ## the specs on the thread sanitizer's build
	+@$(self) VARIANT=tsan test

bench: ## install what is missing, build, measure (one table of ratios to the baselines in C)
	@$(deps) build libs bench
	+@$(self) all bench-programs
	@BUILD=$(BUILD) scripts/bench/run.sh $(BENCH)
bench-programs: $(benches)

lint: ## install what is missing, and check everything that can be checked without running it
	@$(deps) build libs lint
	+@$(self) -k $(lints)
	@echo "lint: clean"
format: ## let clang-format rewrite the C files (FILES=... those only)
	clang-format -i $(or $(FILES),$(c_files))

install: all ## install below PREFIX (/usr/local) and DESTDIR
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include lib/pkgconfig lib/lua/5.4)
	install -m 755 $(BUILD)/aloop $(DESTDIR)$(PREFIX)/bin/
	install -m 644 core/aloop.h bindings/aloop_lua.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(core_lib) $(lua_lib) $(DESTDIR)$(PREFIX)/lib/
	install -m 644 $(BUILD)/aloop.so $(DESTDIR)$(PREFIX)/lib/lua/5.4/
	install -m 644 $(BUILD)/aloop.pc $(BUILD)/aloop-lua.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/
uninstall: ## remove what install put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,$(installed))

deps: ## install what building, testing, checking and measuring need
	@$(deps) build libs run test lint bench

clean: ## remove everything that was built
	rm -rf $(BUILD)

help: ## show this list
	@echo "make [target] [VARIANT=release|debug|tsan] [BUILD=dir] [CC=...] [CFLAGS=...] [SPEC='files of spec/']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---- compiling -------------------------------------------------------------------------------------------------------

# What must be there before anything can be compiled; installs nothing.
check-build:
	@$(deps) --check build

# A file that changes only when its text does: what depends on it is remade when flags or lists of files change.
stamps := $(BUILD)/stamp
quoted = '$(subst ','\'',$(1))'
record = @mkdir -p $(dir $@) && printf '%s\n' $(quoted) | cmp -s - $@ || printf '%s\n' $(quoted) >$@
$(stamps)/flags: FORCE
	$(call record,$(compile))
$(stamps)/files: FORCE
	$(call record,$(core_c) $(bindings_c) $(lua_c) $(link) $(sys_libs) $(LUA_LIB))
$(stamps)/lua: FORCE
	$(call record,$(lua_files))

compile_rule = @mkdir -p $(dir $@) && echo "  CC  $(patsubst $(BUILD)/%,%,$@)" && $(compile) $(1) -MMD -MP -c -o $@ $<
$(BUILD)/obj/%.o: %.c $(stamps)/flags | check-build $(openssl_calls)
	$(call compile_rule)
$(BUILD)/pic/%.o: %.c $(stamps)/flags | check-build $(openssl_calls)
	$(call compile_rule,-fPIC -fno-semantic-interposition)
$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c $(stamps)/flags | check-build
	$(call compile_rule)
$(BUILD)/pic/gen/%.o: $(BUILD)/gen/%.c $(stamps)/flags | check-build
	$(call compile_rule,-fPIC)
$(BUILD)/obj/lua/%.o: $(LUA_SRC)/%.c $(stamps)/flags | check-build
	$(call compile_rule,-DLUA_USE_LINUX -w)

# For core/openssl.h: each function's name stands for its place in the table.
$(openssl_calls): core/openssl_names.h
	@mkdir -p $(dir $@)
	@sed -n 's/^X(\(.*\))$$/#define \1 al_openssl.\1/p' $< >$@

$(BUILD)/gen/embed.c: $(lua_files) scripts/dev/embed.lua $(stamps)/lua | check-build
	@mkdir -p $(dir $@)
	@$(LUA) scripts/dev/embed.lua $@ $(lua_files)

archive_rule = @mkdir -p $(dir $@) && echo "  AR  $@" && rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)
$(core_lib): $(core_o) $(stamps)/files
	$(archive_rule)
$(lua_lib): $(bindings_o) $(stamps)/files
	$(archive_rule)
$(BUILD)/liblua.a: $(lua_o) $(stamps)/files
	$(archive_rule)

lua_deps := $(if $(LUA_SRC),$(BUILD)/liblua.a) $(if $(tsan_wrap),$(call obj,scripts/dev/tsan_longjmp.c))
link_rule = @mkdir -p $(dir $@) && echo "  LD  $@" && $(link) $(1) -o $@ $(filter %.o,$^) $(2)
$(BUILD)/aloop: $(main_o) $(bindings_o) $(core_o) $(lua_deps) $(stamps)/files
	$(call link_rule,,$(lua_libs) $(sys_libs))
$(BUILD)/aloop.so: $(module_o) $(stamps)/files
	$(call link_rule,-shared -Wl$(comma)-Bsymbolic,$(sys_libs))

# A program is one file; those named embed* have the bindings and Lua in them, the others nothing but the core.
program_rule = @mkdir -p $(dir $@) && echo "  LD  $@" && $(link) -o $@ $(filter %.o,$^) $(1) $(sys_libs)
$(embeds): $(lua_lib) $(core_lib) $(lua_deps) $(stamps)/files
	$(call program_rule,$(lua_lib) $(core_lib) $(lua_libs))
$(programs): $(core_lib) $(stamps)/files
	$(call program_rule,$(core_lib) $(ssl_libs) -lm)
$(BUILD)/bench/libbench.a: $(bench_o) $(stamps)/files
	$(archive_rule)
bench_libs := $(BUILD)/bench/libbench.a $(core_lib)
$(benches): $(BUILD)/bench/%: $(BUILD)/obj/scripts/bench/c/%.o $(bench_libs) $(lua_deps) $(stamps)/files
	$(call program_rule,$(bench_libs) $(LUA_LIB) $(ssl_libs) -lm)
$(foreach c,$(program_c),$(eval $(call program,$(c)): $(call obj,$(c))))

# The core alone, and the core with the Lua host. Both are archives, so what they need is named in full.
$(BUILD)/aloop.pc: $(stamps)/prefix Makefile
	@printf '%s\n' 'prefix=$(PREFIX)' '' 'Name: aloop' 'Description: event loop in C' 'Version: $(VERSION)' \
	  'Cflags: -I$${prefix}/include -pthread' 'Libs: -L$${prefix}/lib -laloop $(uring_libs) -ldl -pthread' >$@
$(BUILD)/aloop-lua.pc: $(stamps)/prefix Makefile
	@printf '%s\n' 'prefix=$(PREFIX)' '' 'Name: aloop-lua' 'Description: aloop, to embed in a program with Lua' \
	  'Version: $(VERSION)' 'Requires: aloop lua5.4' 'Libs: -L$${prefix}/lib -laloop_lua -laloop -lm' >$@
$(stamps)/prefix: FORCE
	$(call record,$(VERSION) $(PREFIX) $(uring_libs))
installed := bin/aloop include/aloop.h include/aloop_lua.h lib/libaloop.a lib/libaloop_lua.a lib/lua/5.4/aloop.so \
             lib/pkgconfig/aloop.pc lib/pkgconfig/aloop-lua.pc

# ---- lint ------------------------------------------------------------------------------------------------------------

# gcc sees the release's code, clang that of the debug build; both see the stand-in for the ring as well as the ring.
lint_c     := $(filter-out $(if $(have_uring),,$(ring_c) %_uring.c),$(filter %.c,$(c_files)))
lint_flags  = -std=gnu11 -pthread $(warnings) -Werror $(defines) $(includes)
has_clang  := $(shell command -v clang 2>/dev/null)
lints      := lint-gcc $(if $(has_clang),lint-clang) lint-format lint-lines lint-cppcheck lint-luacheck lint-layers
sources    := core bindings lua scripts spec Makefile .ci/run README.md

lint-gcc: $(patsubst %.c,$(BUILD)/lint/gcc/%.o,$(lint_c))
lint-clang: $(patsubst %.c,$(BUILD)/lint/clang/%.o,$(lint_c))
$(BUILD)/lint/gcc/%.o: %.c Makefile | check-build $(openssl_calls)
	@mkdir -p $(dir $@)
	@gcc $(lint_flags) -O2 -MMD -MP -c -o $@ $<
$(BUILD)/lint/clang/%.o: %.c Makefile | check-build $(openssl_calls)
	@mkdir -p $(dir $@)
	@clang $(lint_flags) -O1 -DAL_DEBUG -MMD -MP -c -o $@ $<
lint-format:
	@status=0; for file in $(c_files); do \
	  clang-format $$file | diff -u --label $$file --label "$$file, formatted" $$file - || status=1; \
	done; exit $$status
lint-lines:
	@$(LUA) scripts/dev/lines.lua $(sort $(shell find $(sources) -type f))
lint-cppcheck:
	@cppcheck -q -j 2 --std=c11 --language=c --inline-suppr --error-exitcode=1 --enable=warning,performance,portability \
	  --library=scripts/dev/cppcheck.cfg --suppressions-list=scripts/dev/cppcheck.txt \
	  $(defines) -Icore -Ibindings $(lint_c)
lint-luacheck:
	@luacheck -q --no-color lua spec scripts
lint-layers:
	@$(LUA) scripts/dev/layers.lua

-include $(shell find $(BUILD)/obj $(BUILD)/pic $(BUILD)/lint -name '*.d' 2>/dev/null)
