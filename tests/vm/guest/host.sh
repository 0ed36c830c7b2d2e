#!/bin/sh
# The first program of a machine that is a host of its own: runs the commands that come in by the control port, one a
# line, each in a shell, and answers with exit code and lengths on a line, then what was printed and what was complained.
export PATH=/tools:/bin HOME=/root DROVER_STATE=/var/host
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -o remount,rw /
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /run/lvm /run/lock/lvm
ip link set lo up
for port in /dev/vport*; do
    exec 3<>"$port"
done
echo "HOST-READY"
while read -r line <&3; do
    read -r up _ </proc/uptime
    echo "RUN at $up: $line"
    sh -c "$line" >/tmp/.out 2>/tmp/.err </dev/null 3>&-
    echo "$? $(stat -c %s /tmp/.out) $(stat -c %s /tmp/.err)" >&3
    cat /tmp/.out /tmp/.err >&3
done
poweroff -f
