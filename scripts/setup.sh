#!/usr/bin/env bash
# Finds what the tests (`setup.sh test`) or the demo too (`setup.sh demo`) need, and installs what is missing.
#
# Servers are only installed, never run: the tests and the demo start private ones of their own. Services and database
# clusters that are already here are left alone, and packages installed here are kept from starting any.
# Run as root or as a user with sudo; any number of times.
set -euo pipefail

readonly NODE_MIN=18
readonly REDIS_MIN=7

# While packages are installed, these keep them from starting services and making database clusters.
readonly SERVICE_POLICY=/usr/sbin/policy-rc.d
readonly CLUSTER_POLICY=/etc/postgresql-common/createcluster.d/zz-tidegate-setup.conf

main() {
  local wanted=${1:-demo}
  case $wanted in
    test | demo) ;;
    install-packages) shift; install_packages "$@"; return ;;
    *) die "usage: setup.sh [test|demo]" ;;
  esac
  cd "$(dirname "$0")/.."
  [ "$(uname -s)" = Linux ] ||
    die "the private servers need Linux (setpriv and the kernel's parent-death signal); this is $(uname -s)"
  check_rust

  local missing
  missing=$(missing_needs "$wanted")
  if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # a list of plain words
    provide $missing
    missing=$(missing_needs "$wanted")
    [ -z "$missing" ] || die "still missing after the installation: ${missing//$'\n'/, }"
  fi
  check_versions "$wanted"
  # Without it one row of the fault suite does not run, and says so.
  if [ "$wanted" = test ] && ! has faketime; then
    (provide faketime) || echo "setup: going on without faketime"
  fi
}

# One word for each thing that is needed and not here.
missing_needs() {
  has cc || echo compiler
  has setpriv || echo setpriv
  has redis-server || has valkey-server || echo redis
  has_postgres || echo postgres
  if [ "$1" = demo ]; then
    { has node && has npm; } || echo node
  fi
}

# Looks where src/stack/program.rs looks.
has_postgres() {
  local initdb
  for initdb in "$(command -v initdb || true)" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
    /usr/libexec/postgresql*/initdb; do
    [ -x "$initdb" ] && [ -x "$(dirname "$(readlink -f "$initdb")")/postgres" ] && return 0
  done
  return 1
}

check_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  has cargo || die "Rust is missing: install it from https://rustup.rs (version $wanted or newer), then run this again"
  found=$(cargo --version | cut -d' ' -f2)
  at_least "$found" "$wanted" || die "Rust $wanted or newer is needed, this is $found: run 'rustup update stable'"
}

check_versions() {
  local server found
  server=$(command -v redis-server || command -v valkey-server)
  found=$("$server" --version | sed -n 's/.*v=\([0-9.]*\).*/\1/p')
  at_least "$found" "$REDIS_MIN" ||
    die "Redis $REDIS_MIN or newer (or Valkey) is needed, $server is $found: see https://redis.io/downloads"
  [ "$1" = demo ] || return 0
  found=$(node --version | tr -d v)
  at_least "$found" "$NODE_MIN" ||
    die "Node $NODE_MIN or newer is needed, this is $found: see https://nodejs.org/en/download"
}

# Installs the packages for the given needs, or says which ones to install.
provide() {
  local command=() packages=()
  # shellcheck disable=SC2207 # package names hold no blanks
  packages=($(apt_packages "$@"))
  if ! has apt-get; then
    say_packages "$*"
    die "this system has no apt-get, so nothing was installed"
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! has sudo; then
      say_packages "$*"
      die "installing needs root: there is no sudo, so nothing was installed"
    fi
    command=(sudo)
    # Nobody is there to type a password.
    [ -t 0 ] || command+=(-n)
  fi
  echo "setup: installing ${packages[*]} (a minute or two)"
  "${command[@]}" bash "$PWD/scripts/setup.sh" install-packages "${packages[@]}" || {
    say_packages "$*"
    die "the installation failed: the network, the package lists or the rights of sudo; see above"
  }
}

apt_packages() {
  local need
  for need in "$@"; do
    case $need in
      compiler) echo gcc libc6-dev ;;
      setpriv) echo util-linux ;;
      redis) echo redis-server ;;
      postgres) echo postgresql ;;
      faketime) echo faketime ;;
      node) echo nodejs npm ;;
    esac
  done
}

say_packages() {
  cat >&2 <<TEXT
setup: missing: $1. The packages that bring everything:
  apt   gcc libc6-dev util-linux redis-server postgresql faketime nodejs npm
  dnf   gcc util-linux redis (or valkey) postgresql-server postgresql libfaketime nodejs npm
  apk   build-base setpriv redis postgresql libfaketime nodejs npm
  brew  redis postgresql@17 node (to build and to run the daemon; the tests and the demo need Linux)
TEXT
}

# As root: installs Debian packages without starting a service or making a database cluster.
install_packages() {
  local fresh_redis=no
  case " $* " in *" redis-server "*) fresh_redis=yes ;; esac
  trap lift_policies EXIT
  set_policies
  export DEBIAN_FRONTEND=noninteractive
  # On systems that have it, needrestart would restart services of others.
  export NEEDRESTART_SUSPEND=1
  apt-get -o DPkg::Lock::Timeout=120 -qq update
  # Errors go to the other stream; what it unpacks interests nobody.
  apt-get -o DPkg::Lock::Timeout=120 -qq -y install --no-install-recommends "$@" >/dev/null
  if [ "$fresh_redis" = yes ]; then
    leave_off redis-server
  fi
}

set_policies() {
  if [ ! -e "$SERVICE_POLICY" ]; then
    made_service_policy=yes
    printf '#!/bin/sh\n# Temporary, by the setup of Tidegate.\nexit 101\n' >"$SERVICE_POLICY"
    chmod 0755 "$SERVICE_POLICY"
  fi
  mkdir -p "$(dirname "$CLUSTER_POLICY")"
  echo 'create_main_cluster = false' >"$CLUSTER_POLICY"
}

lift_policies() {
  [ "${made_service_policy:-no}" = no ] || rm -f "$SERVICE_POLICY"
  rm -f "$CLUSTER_POLICY"
}

# The package enables its service at boot. It was not here before, so nobody counts on it.
leave_off() {
  has systemctl || return 0
  local now=()
  # An administrator's own policy may have let it start.
  [ -d /run/systemd/system ] && now=(--now)
  systemctl disable "${now[@]}" "$1" >/dev/null 2>&1 || true
  echo "setup: installed $1; its service is off (to use it: systemctl enable --now $1)"
}

# Whether version $1 is $2 or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

has() { command -v "$1" >/dev/null 2>&1; }

die() {
  echo "setup: $*" >&2
  exit 1
}

main "$@"
