#!/bin/sh
# The first program of every machine: loads modules, and goes on to the file system on the first disk.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
read -r up _ </proc/uptime
echo "UPTIME-INIT $up"
while read -r module; do
    insmod "/modules/$module" || echo "NO-MODULE $module"
done </modules/order
if ! mount -t ext4 /dev/vda /root; then
    echo "NO-ROOT"
    poweroff -f
fi
mount --move /dev /root/dev
umount /proc /sys
exec switch_root /root /sbin/init
