#!/bin/sh
# In a guest with two NVMe drives, ogee0 and ogee1, behind an IOMMU: `ogee device ls --local|prepare|release|health`.
failed() {
    echo "lab_drive: $*"
    cat /tmp/out
    exit 1
}
# refused WORDS COMMAND...   which fails, and says so
refused() {
    words=$1
    shift
    "$@" >/tmp/out 2>&1 && failed "not refused: $*"
    grep -q "$words" /tmp/out || failed "not for $words: $*"
    echo "drives: refused: $(sed -n 's/^ *because: //p' /tmp/out | head -n 1)"
}
done_by() {
    "$@" >/tmp/out 2>&1 || failed "$*"
}
driver() {
    basename "$(readlink "/sys/bus/pci/devices/$1/driver")"
}
# field SERIAL JQ
field() {
    ogee device ls --local -o json | /usr/bin/jq -r ".[] | select(.serial == \"$1\") | $2"
}

mkdir -p /etc/ogee
[ "$(ogee device ls --local -o json | /usr/bin/jq length)" = 2 ] || failed "not two drives: $(ogee device ls --local)"
first=$(field ogee0 .pci) second=$(field ogee1 .pci)
[ "$(field ogee0 '.namespaces[0], .bytes, .may_be_taken' | tr '\n' ' ')" = "nvme0n1 67108864 true " ] || failed "$(ogee device ls --local -o json)"
done_by ogee device health ogee0
echo "drives: health: $(grep temperature /tmp/out)"
[ "$(ogee device health /dev/nvme0n1 -o json | /usr/bin/jq '.celsius > 0 and .media_errors == 0')" = true ] || failed "no health"

# What is in use stays where it is.
/usr/sbin/mke2fs -q -t ext4 /dev/nvme1n1 >/tmp/out 2>&1 || failed mke2fs
mkdir -p /mnt/data
mount -t ext4 /dev/nvme1n1 /mnt/data || failed mount
refused 'nvme1n1 is mounted at /mnt/data' ogee device prepare ogee1
umount /mnt/data
refused 'nvme1n1 has ext4 on it' ogee device prepare "$second"
[ "$(driver "$second")" = nvme ] || failed "taken in spite of it"
exec 5</dev/nvme0n1
refused 'nvme0n1 is open in process' ogee device prepare ogee0
exec 5<&-
refused 'there are' ogee device prepare ogee7

# What is not, changes hands; a dry run changes nothing.
done_by ogee device prepare ogee0 --dry-run
grep -q "echo 'vfio-pci' > /sys/bus/pci/devices/$first/driver_override" /tmp/out || failed "the dry run"
[ "$(driver "$first")" = nvme ] || failed "a dry run took it"
done_by ogee device prepare ogee0
[ "$(driver "$first")" = vfio-pci ] || failed "it is with $(driver "$first")"
grep -q 'serial = "ogee0"' /etc/ogee/drives.toml || failed "not remembered: $(cat /etc/ogee/drives.toml)"
refused 'the kernel does not drive it' ogee device health "$first"
group=$(basename "$(readlink "/sys/bus/pci/devices/$first/iommu_group")")
exec 5<"/dev/vfio/$group" || failed "the group cannot be opened"
refused "$first is open in process" ogee device release ogee0
exec 5<&-
done_by ogee device prepare --recorded
grep -q 'already' /tmp/out || failed "not known to be prepared"
echo "drives: $(cat /tmp/out)"

# A boot gives all to the kernel.
echo "$first" >"/sys/bus/pci/devices/$first/driver/unbind"
echo >"/sys/bus/pci/devices/$first/driver_override"
echo "$first" >/sys/bus/pci/drivers_probe
wait_s=0
until [ "$(field ogee0 .driver)" = nvme ] && [ "$(field ogee0 '.namespaces | length')" = 1 ]; do
    wait_s=$((wait_s + 1))
    [ "$wait_s" -lt 30 ] || failed "the kernel does not take it"
    sleep 1
done
# It was in another slot then.
sed -i 's/^pci = .*/pci = "0000:7f:00.0"/' /etc/ogee/drives.toml
done_by ogee device prepare --recorded
[ "$(driver "$first")" = vfio-pci ] || failed "not prepared at boot: $(cat /tmp/out)"
grep -q "pci = \"$first\"" /etc/ogee/drives.toml || failed "its place is not kept"
echo "drives: at boot: $(cat /tmp/out)"
done_by ogee device release ogee0
[ "$(driver "$first")" = nvme ] || failed "not given back"
! grep -q ogee0 /etc/ogee/drives.toml || failed "remembered in spite of it"
echo "drives: all is well"
