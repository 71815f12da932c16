#!/bin/sh
# In a guest with one NVMe controller: gives it to a driver of user space, and runs a command with its PCI address.
#
#   lab_spdk.sh DRIVER HUGEPAGES COMMAND...      DRIVER: uio_pci_generic, vfio-pci or nvme (the kernel's own)
driver=$1 pages=$2
shift 2
for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/class")" != 0x010802 ] || OGEE_NVME_PCI=${device##*/}
done
[ -n "$OGEE_NVME_PCI" ] || { echo "lab_spdk: no NVMe controller" && exit 1; }
export OGEE_NVME_PCI OPENSSL_CONF=/dev/null
device=/sys/bus/pci/devices/$OGEE_NVME_PCI
mkdir -p /dev/hugepages /var/run
mount -t hugetlbfs none /dev/hugepages
echo "$pages" >/proc/sys/vm/nr_hugepages
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$pages" ] || echo "lab_spdk: only $(cat /proc/sys/vm/nr_hugepages) hugepages"
[ ! -e "$device/driver" ] || echo "$OGEE_NVME_PCI" >"$device/driver/unbind"
echo "$driver" >"$device/driver_override"
echo "$OGEE_NVME_PCI" >/sys/bus/pci/drivers_probe
bound=$(readlink "$device/driver")
[ "${bound##*/}" = "$driver" ] || { echo "lab_spdk: $OGEE_NVME_PCI is bound to ${bound:-nothing}" && exit 1; }
echo "lab_spdk: $OGEE_NVME_PCI is bound to $driver"
exec "$@"
