#!/usr/bin/env bash
# Softmax regression on two hosts that this script makes itself: two network namespaces joined by a virtual cable.
# Needs Linux, root, iproute2 and torch: sudo examples/two_hosts.sh
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "two_hosts.sh: run it as root, it makes network namespaces" >&2; exit 2; }
command -v ip >/dev/null || { echo "two_hosts.sh: needs ip, from the package iproute2" >&2; exit 2; }

first=luce-$$-0 second=luce-$$-1
cleanup() { ip netns del "$first" 2>/dev/null; ip netns del "$second" 2>/dev/null; } || true
trap 'cleanup || true' EXIT
ip netns add "$first"
ip netns add "$second"
ip link add cable0 netns "$first" type veth peer name cable1 netns "$second"
ip -n "$first" addr add 10.99.0.1/24 dev cable0
ip -n "$second" addr add 10.99.0.2/24 dev cable1
for host in "$first" "$second"; do ip -n "$host" link set lo up; done
ip -n "$first" link set cable0 up
ip -n "$second" link set cable1 up

run() { # namespace, rank, interface
  timeout 120 ip netns exec "$1" env GLOO_SOCKET_IFNAME="$3" MASTER_ADDR=10.99.0.1 MASTER_PORT=29511 \
    RANK="$2" WORLD_SIZE=2 .venv/bin/python examples/two_hosts.py
}
run "$second" 1 cable1 &
run "$first" 0 cable0
wait $!
