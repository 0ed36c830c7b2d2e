#!/bin/sh
# What a machine does that was started from a clone: checks what came with the master, looks for data of its own, leaves
# its name, ends.
export PATH=/bin
cd /
mount -t proc proc /proc
mount -o remount,rw /
sha256sum -c payload.sha
for word in $(cat /proc/cmdline); do
    case $word in id=*) id=${word#id=} ;; esac
done
echo "CLONE-ID before: <$(cat /etc/id)>"
echo "$id" >/etc/id
sync
read -r up _ </proc/uptime
mount -o remount,ro / && sync && echo "BOOT-OK id=$id up=$up"
poweroff -f
