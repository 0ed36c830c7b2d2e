#!/bin/sh
# A cluster of one host on this machine's loopback, and a master that it has sealed: /golden.raw as golden@1.
set -e
drover-tracker init --state /var/tracker --listen 127.0.0.1:7440
drover-tracker run --state /var/tracker --http 127.0.0.1:7441 >/var/tracker.log 2>&1 &
mkdir /var/host
echo 'listen = "127.0.0.1:7444"' >/var/host/drover.toml
token=$(drover-tracker token --state /var/tracker)
until drover join 127.0.0.1:7440 "$token" --name guest; do sleep 0.1; done
drover daemon >/var/host.log 2>&1 &
until drover status >/dev/null 2>&1; do sleep 0.1; done
drover publish /golden.raw --name golden --key /var/tracker/publisher.key
