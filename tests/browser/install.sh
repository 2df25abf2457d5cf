#!/usr/bin/env bash
# Installs Chromium, its driver and Firefox from Debian's packages where that can be done; says so where it cannot. That
# is not a failure: the tests that need them then skip. Firefox needs no driver.
set -u
have() { command -v "$1" > /dev/null; }
packages=()
{ have chromium && have chromedriver; } || packages+=(chromium chromium-driver fonts-dejavu-core)
have firefox-esr || have firefox || packages+=(firefox-esr fonts-dejavu-core)
if [ "${#packages[@]}" -eq 0 ]; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! have apt-get; then
  echo "Not installed, and cannot be (root and apt-get are needed): ${packages[*]}. Their tests will skip" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } > /dev/null 2>&1 ||
  echo "apt-get could not install ${packages[*]}: their tests will skip" >&2
exit 0
