#!/usr/bin/env bash
# Installs Chromium and its driver from Debian's packages where that can be done; says so where it cannot. That is not a
# failure: the tests that need them then skip.
set -u
if command -v chromium chromedriver > /dev/null; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "Chromium is not installed and cannot be (root and apt-get are needed): its tests will skip" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
packages=(chromium chromium-driver fonts-dejavu-core)
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } > /dev/null 2>&1 ||
  echo "apt-get could not install Chromium: its tests will skip" >&2
exit 0
