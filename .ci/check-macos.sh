#!/usr/bin/env bash
# Type-checks cclocal for Apple Silicon on Linux: library, binary and tests, with all dependencies. It links nothing and runs nothing.
#
# The target's standard library comes from the first of these that is there:
#   1. the Rust toolchain in use, if it has the target;
#   2. Debian's rustc-web and rust-web-src, from which the library is built (`-Z build-std`): no download besides apt's;
#   3. `rustup target add`, on systems without those packages.
# C and assembly in dependencies (ring) are compiled by `zig cc` from PyPI, which brings the macOS headers.
#
# Usage: .ci/check-macos.sh [ARGUMENTS FOR CARGO CHECK…]    without any: --all-targets --all-features
# CCLOCAL_MACOS_CHECK_DIR moves what is kept between runs (default: target/macos-check).
set -euo pipefail
shopt -s inherit_errexit

readonly TARGET=aarch64-apple-darwin
readonly ZIG_VERSION=0.17.1

main() {
    [ "$(uname -s)" = Linux ] || die 'this check is for Linux; on a Mac, run: cargo check --all-targets --all-features'
    command -v cargo >/dev/null || die 'cargo is not on PATH; see https://rustup.rs'
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    work=${CCLOCAL_MACOS_CHECK_DIR:-$PWD/target/macos-check}
    mkdir -p "$work"
    work=$(cd "$work" && pwd)

    cargo_args=(check --locked --target "$TARGET" --target-dir "$work/target")
    standard_library
    c_compiler

    [ $# -gt 0 ] || set -- --all-targets --all-features
    echo "macOS check: ${RUSTC:-rustc} $("${RUSTC:-rustc}" --version | cut -d' ' -f2), zig $ZIG_VERSION, cargo check $*"
    cargo "${cargo_args[@]}" "$@"
    echo "macOS check: the code type-checks for $TARGET"
}

die() {
    printf 'check-macos: %s\n' "$*" >&2
    exit 1
}

# Decides where the target's standard library comes from; sets RUSTC and cargo's arguments to match.
standard_library() {
    if toolchain_has_target; then
        return
    fi
    if debian_compiler; then
        # The package's compiler is a stable one; this variable lets it and cargo take -Z options.
        export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
        cargo_args+=(-Z 'build-std=std,panic_abort')
        return
    fi
    command -v rustup >/dev/null || die "no standard library for $TARGET: neither rustc-web (Debian) nor rustup is available"
    rustup target add "$TARGET"
}

toolchain_has_target() {
    local libraries
    libraries=$(rustc --print target-libdir --target "$TARGET" 2>/dev/null) && compgen -G "$libraries/libstd-*.rlib" >/dev/null
}

# Makes sure that Debian's compiler and library source are installed, in the same version; false if the system has no such packages.
debian_compiler() {
    debian_compiler_installed && return
    command -v apt-get >/dev/null || return
    as_root apt-get -qq -o Acquire::Retries=3 update || echo 'check-macos: apt-get update failed; going on with the package lists as they are' >&2
    [ -n "$(apt-cache search --names-only '^rustc-web$')" ] || return
    # The command rustc that people use comes first on PATH from rustup; this one is only ever named by its full path.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=3 install --no-install-recommends rustc-web rust-web-src >/dev/null ||
        die 'rustc-web and rust-web-src could not be installed'
    debian_compiler_installed || die 'rustc-web and rust-web-src are installed in different versions'
}

debian_compiler_installed() {
    local compiler source
    compiler=$(installed_version rustc-web) && source=$(installed_version rust-web-src) && [ "$compiler" = "$source" ]
}

installed_version() {
    # shellcheck disable=SC2016 # the braces are dpkg-query's own
    dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p' | grep .
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Puts wrappers around zig's compiler and archiver and names them as the target's.
c_compiler() {
    local zig
    zig=$(zig_binary)
    # The flags with which the `cc` crate names the target are Apple clang's; zig takes its own -target and refuses them.
    cat >"$work/cc" <<WRAPPER
#!/usr/bin/env bash
arguments=()
while [ \$# -gt 0 ]; do
    case \$1 in
        --target=* | -mmacosx-version-min=* | -mmacos-version-min=*) ;;
        -arch | -isysroot) shift ;;
        *) arguments+=("\$1") ;;
    esac
    shift
done
exec "$zig" cc -target aarch64-macos "\${arguments[@]}"
WRAPPER
    printf '#!/bin/sh\nexec "%s" ar "$@"\n' "$zig" >"$work/ar"
    chmod +x "$work/cc" "$work/ar"
    export CC_aarch64_apple_darwin=$work/cc AR_aarch64_apple_darwin=$work/ar
    export ZIG_GLOBAL_CACHE_DIR=$work/zig-cache ZIG_LOCAL_CACHE_DIR=$work/zig-cache
}

# Prints the path of zig, after installing it into an environment of its own if need be.
zig_binary() {
    local environment=$work/ziglang-$ZIG_VERSION zig
    if ! zig=$(compgen -G "$environment/lib/python*/site-packages/ziglang/zig") || [ "$("$zig" version 2>/dev/null)" != "$ZIG_VERSION" ]; then
        rm -rf "$environment"
        if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=3 install --no-install-recommends python3-venv >/dev/null ||
                die 'Python 3 with the venv module is needed, to install zig'
        fi
        python3 -m venv "$environment" >&2
        "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps "ziglang==$ZIG_VERSION" >&2
        zig=$(compgen -G "$environment/lib/python*/site-packages/ziglang/zig") || die 'the ziglang package holds no zig'
    fi
    printf '%s\n' "$zig"
}

main "$@"
