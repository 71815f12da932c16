#!/bin/sh
# In a guest with NVMe controllers: gives them to a driver of user space, and runs a command with their PCI addresses in
# OGEE_NVME_PCI.
#
#   lab_spdk.sh DRIVER HUGEPAGES COMMAND...      DRIVER: uio_pci_generic, vfio-pci or nvme (the kernel's own)
driver=$1 pages=$2
shift 2
OGEE_NVME_PCI=''
for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/class")" != 0x010802 ] || OGEE_NVME_PCI="$OGEE_NVME_PCI ${device##*/}"
done
OGEE_NVME_PCI=${OGEE_NVME_PCI# }
[ -n "$OGEE_NVME_PCI" ] || { echo "lab_spdk: no NVMe controller" && exit 1; }
# SPDK and DPDK want these folders, and OpenSSL a file that is not here.
export OGEE_NVME_PCI OPENSSL_CONF=/dev/null
mkdir -p /dev/hugepages /var/run
mount -t hugetlbfs none /dev/hugepages
echo "$pages" >/proc/sys/vm/nr_hugepages
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$pages" ] || echo "lab_spdk: only $(cat /proc/sys/vm/nr_hugepages) hugepages"
for address in $OGEE_NVME_PCI; do
    device=/sys/bus/pci/devices/$address
    [ ! -e "$device/driver" ] || echo "$address" >"$device/driver/unbind"
    echo "$driver" >"$device/driver_override"
    echo "$address" >/sys/bus/pci/drivers_probe
    bound=$(readlink "$device/driver")
    [ "${bound##*/}" = "$driver" ] || { echo "lab_spdk: $address is bound to ${bound:-nothing}" && exit 1; }
    echo "lab_spdk: $address is bound to $driver"
done
exec "$@"
