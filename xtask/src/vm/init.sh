#!/bin/busybox sh
# The guest's first process: makes the machine a program expects, runs /run.sh, says how it ended, powers off.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs security /sys/kernel/security
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
ip link set lo up
hostname guest
cd /root
echo "gotracer-vm: booted $(uname -r) $(uname -m)"
sh /run.sh
echo "gotracer-vm: exit status $?"
poweroff -f
