#!/bin/sh
# Builds the ELF files beside this folder: gcc, g++, gfortran 12, binutils 2.40, dwz, xz, rustc and two Go versions.
# Usage: build.sh GO_1_18 GO_1_20 (the `go` commands to use).
set -eu
cd "$(dirname "$0")"
out=..
temp=$(mktemp -d)
flags="-O2 -g -fPIC -ffile-prefix-map=$PWD=/src -fcf-protection=none"
link="-shared -nostdlib -Wl,--build-id=sha1 -Wl,--hash-style=gnu -Wl,-z,noseparate-code"

gcc $flags $link -o "$out/inlined.so" inlined.c
objcopy --only-keep-debug "$out/inlined.so" "$out/inlined.debug"
(cd "$out" && objcopy --strip-all --add-gnu-debuglink=inlined.debug inlined.so stripped.so)
gcc $flags -shared -nostdlib -Wl,--build-id=none -o "$temp/no_id.so" inlined.c
objcopy --only-keep-debug "$temp/no_id.so" "$out/no_id.debug"
(cd "$out" && objcopy --strip-all --add-gnu-debuglink=no_id.debug "$temp/no_id.so" no_id.so)
objcopy --only-keep-debug --compress-debug-sections=zlib "$out/inlined.so" "$out/zlib.debug"
objcopy --only-keep-debug --compress-debug-sections=zstd "$out/inlined.so" "$out/zstd.debug"
objcopy --only-keep-debug --compress-debug-sections=zlib-gnu "$out/inlined.so" "$out/zlib_gnu.debug"
objcopy --strip-debug "$out/inlined.so" "$temp/mini"
xz --check=crc64 --stdout "$temp/mini" > "$temp/mini.xz"
objcopy --strip-all --add-section .gnu_debugdata="$temp/mini.xz" "$out/inlined.so" "$out/mini.so"
gcc $flags -fcf-protection=branch $link -Wl,-z,ibtplt -o "$out/marked_stubs.so" inlined.c
strip "$out/marked_stubs.so"

for name in one two; do
    gcc $flags -DOUTER_NAME=outer_$name -DPLACE_NAME=place_$name $link -o "$temp/$name.so" other.c
    objcopy --only-keep-debug "$temp/$name.so" "$temp/$name.debug"
done
(cd "$temp" && dwz -l none -m shared.dwz one.debug two.debug)
cp "$temp/one.debug" "$out/shares_entries.debug"
cp "$temp/shared.dwz" "$out/shared.dwz"
objcopy --strip-all "$temp/one.so" "$out/shares_entries.so"

gcc -c -o "$temp/labels.o" labels.s
ld -shared -T segments.ld --build-id=none -o "$out/segments.so" "$temp/labels.o"
g++ -O1 -fPIC $link -o "$out/templates.so" templates.cpp
rustc -O -C debuginfo=0 -C symbol-mangling-version=v0 -C panic=abort -C relocation-model=pic --emit=obj -o "$temp/v0.o" mangled.rs
RUSTC_BOOTSTRAP=1 rustc -Z unstable-options -O -C debuginfo=0 -C symbol-mangling-version=legacy -C panic=abort -C relocation-model=pic --emit=obj -o "$temp/legacy.o" mangled.rs
gcc $link -o "$out/rust_v0.so" "$temp/v0.o"
gcc $link -o "$out/rust_legacy.so" "$temp/legacy.o"
gfortran -J "$temp" $flags $link -o "$out/fortran.so" solver.f90

# Of a Go program only the headers and the function table are kept: the rest is zero, and compresses to nothing.
for version in 1 2; do
    go=$(eval echo "\$$version")
    GO111MODULE=off CGO_ENABLED=0 "$go" build -trimpath -ldflags="-s -w" -o "$temp/go$version" main.go
    python3 zero_sections.py "$temp/go$version" "$temp/zeroed$version"
    xz -9e --check=crc64 --stdout "$temp/zeroed$version" > "$out/go$version.xz"
done
rm -r "$temp"
