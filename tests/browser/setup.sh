#!/usr/bin/env bash
# A headless Chromium for the tests with the marker `browser`: Debian's packages, as root.
set -euo pipefail

if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit; fi
[ "$(id -u)" = 0 ] || { echo "Installing chromium and chromium-driver needs root." >&2; exit 1; }
command -v apt-get >/dev/null || { echo "There is no apt-get to install chromium with." >&2; exit 1; }
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver
