# shellcheck shell=bash
# The lab's kernel and images: found, made, cached. Sourced after common.sh by scripts/lab. Not run.
#
#   target/lab/kernel/{version,vmlinux,lib/modules}   Debian's kernel, unpacked and never installed
#   target/lab/images/KEY.cpio                        one per contents; the newest few are kept
#
# What is made is moved to its place when it is whole; one maker at a time (a lock).

LAB_CACHE=${CARGO_TARGET_DIR:-$REPO/target}/lab
LAB_IMAGES_MAX=12

# lab_lock COMMAND...   alone in the cache
lab_lock() {
    mkdir -p "$LAB_CACHE/images"
    (
        flock 9
        "$@"
    ) 9>"$LAB_CACHE/lock"
}

# ---- the kernel -------------------------------------------------------------------------------

# Unpacks Debian's current kernel, unless one is there. `scripts/lab clean` makes room for a newer one.
kernel_fetch() {
    local package new
    [ ! -e "$LAB_CACHE/kernel/version" ] || return 0
    # The meta package depends on the newest build, whatever that is called.
    package=$(kernel_package)
    if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then
        apt_alone apt-get update -qq
        package=$(kernel_package)
    fi
    [ -n "$package" ] || die "linux-image-amd64 is unknown to apt: run apt-get update"
    say "the lab's kernel: $package"
    new=$(mktemp -d "$LAB_CACHE/kernel.XXXXXX")
    (cd "$new" && apt-get download -qq "$package" 2>/dev/null) || die "cannot download $package"
    dpkg-deb -x "$new"/"$package"_*.deb "$new/all"
    mkdir "$new/kernel"
    mv "$new/all/lib" "$new/kernel/lib"
    local version
    version=$(basename "$new"/kernel/lib/modules/*)
    depmod -b "$new/kernel" "$version"
    kernel_unpack "$new/all/boot/vmlinuz-$version" >"$new/kernel/vmlinux"
    echo "$version" >"$new/kernel/version"
    rm -rf "$LAB_CACHE/kernel"
    mv "$new/kernel" "$LAB_CACHE/kernel"
    rm -rf "$new"
}

kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" && !found++ { print $2 }'
}

# kernel_unpack BZIMAGE   its payload, an ELF file, which QEMU boots at once (PVH): half the boot time.
# The boot protocol's header says where it lies; all compressions but gzip append the size.
kernel_unpack() {
    local setup offset length magic
    setup=$(od -An -tu1 -j 497 -N 1 "$1")
    read -r offset length < <(od -An -tu4 -j 584 -N 8 "$1")
    offset=$(((setup + 1) * 512 + offset))
    magic=$(od -An -tx1 -j "$offset" -N 4 "$1" | tr -d ' ')
    kernel_payload() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$offset" count=$((length - $2)) status=none; }
    case $magic in
    fd377a58) kernel_payload "$1" 4 | xz -dc ;;
    28b52ffd) kernel_payload "$1" 4 | zstd -dcq ;;
    02214c18) kernel_payload "$1" 4 | lz4 -dcq ;;
    1f8b*) kernel_payload "$1" 0 | gzip -dc ;;
    *) die "the kernel's payload is compressed in an unknown way ($magic)" ;;
    esac
}

kernel_version() {
    cat "$LAB_CACHE/kernel/version"
}

# kernel_modules NAME...   paths and parameters in the order in which they load
kernel_modules() {
    local name
    for name in "$@"; do
        modprobe -d "$LAB_CACHE/kernel" -S "$(kernel_version)" --show-depends "$name" ||
            die "the kernel $(kernel_version) has no module $name"
    done | awk '$1 == "insmod" && !seen[$2]++ { sub(/^insmod /, ""); print }'
}

# ---- the image --------------------------------------------------------------------------------

# image_make MODULES HOST:GUEST...   the path of an image with these modules and files
image_make() {
    local list key
    # What an interrupted maker left.
    rm -rf "$LAB_CACHE"/list.* "$LAB_CACHE"/kernel.*
    list=$(mktemp -d "$LAB_CACHE/list.XXXXXX")
    # shellcheck disable=SC2086 # one word a module
    kernel_modules $1 >"$list/modules"
    shift
    image_files "$@" | sort -u -t: -k2,2 >"$list/files"
    key=$(image_key "$list")
    if [ ! -e "$LAB_CACHE/images/$key.cpio" ]; then
        image_build "$list" "$LAB_CACHE/images/$key.cpio"
        image_prune
    fi
    touch "$LAB_CACHE/images/$key.cpio"
    rm -rf "$list"
    echo "$LAB_CACHE/images/$key.cpio"
}

# Host and guest path of each file, and of the libraries that it is linked with.
image_files() {
    local pair source library
    for pair in "$@"; do
        source=$(readlink -f "${pair%%:*}") || die "there is no ${pair%%:*}"
        [ -f "$source" ] || die "there is no file ${pair%%:*}"
        echo "$source:${pair#*:}"
        # ldd refuses what is not linked dynamically.
        for library in $({ ldd "$source" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; }); do
            echo "$(readlink -f "$library"):$library"
        done
    done
}

# Of what goes in, by contents, and of what makes it.
image_key() {
    {
        kernel_version
        cat "$1/modules"
        # Where a file comes from does not matter: tests copy the binary to a new place each time.
        cut -d: -f2 "$1/files"
        cut -d: -f1 "$1/files" | tr '\n' '\0' | xargs -0r sha256sum | cut -d' ' -f1
        sha256sum "$(command -v busybox)" "$REPO/scripts/lib/lab_init" "$REPO/scripts/lib/lab_image.sh"
    } | sha256sum | cut -c1-24
}

image_build() {
    local root=$1/root path arguments name source
    mkdir -p "$root"/{bin,sbin,etc,proc,sys,dev,tmp,run,mnt,root,var/tmp,lib/modules}
    install -m 755 "$(command -v busybox)" "$root/bin/busybox"
    for name in $(busybox --list); do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    install -m 755 "$REPO/scripts/lib/lab_init" "$root/init"
    while read -r path arguments; do
        name=$(basename "$path")
        case $name in
        *.ko) cp "$path" "$root/lib/modules/$name" ;;
        *.ko.xz) name=${name%.xz} && xz -dc "$path" >"$root/lib/modules/$name" ;;
        *.ko.zst) name=${name%.zst} && zstd -dcq "$path" >"$root/lib/modules/$name" ;;
        *) die "a module in an unknown form: $path" ;;
        esac
        echo "$name $arguments" >>"$root/lib/modules/order"
    done <"$1/modules"
    while IFS=: read -r source path; do
        install -D "$source" "$root/$path"
        # The guest keeps all of it in memory.
        strip --strip-debug "$root/$path" 2>/dev/null || true
    done <"$1/files"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) >"$2.new"
    mv "$2.new" "$2"
}

image_prune() {
    local old
    find "$LAB_CACHE/images" -name '*.cpio' -printf '%T@ %p\n' | sort -rn | tail -n +$((LAB_IMAGES_MAX + 1)) |
        while read -r _ old; do rm -f "$old"; done
}
