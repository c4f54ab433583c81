#!/bin/bash
# Managed by kubeline (vip-keepalive). Changes here are overwritten.
# kubeline: vip-keepalive-check v1
# Whether HAProxy serves on this machine: its own answer to $1, such as http://127.0.0.1:8404/healthz. It asks no
# backend: a machine must not give the address away because of what all machines see alike.
rest=${1#http://}
address=${rest%%/*}
exec 3<>"/dev/tcp/${address%%:*}/${address##*:}" || exit 1
printf 'GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n' "${rest#*/}" "$address" >&3 || exit 1
IFS= read -r -t 1 status <&3 || exit 1
[[ $status == HTTP/1.[01]\ 200\ * ]]
