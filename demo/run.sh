#!/usr/bin/env bash
# Plays the demo: a private Redis and Postgres, the daemon and a small web app. `make demo` builds first and calls this.
#
# Nothing is left running, however it ends, and nothing is left behind but the log and node_modules.
# DEMO_PROGRAM names another build of tidegate than the release one.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

readonly TARGET=${CARGO_TARGET_DIR:-target}
readonly PROGRAM=${DEMO_PROGRAM:-$TARGET/release/tidegate}
readonly WORK=$TARGET/demo
# The port that stands in demo/jobs.
readonly WRITTEN_PORT=3999

main() {
  [ -x "$PROGRAM" ] || die "there is no $PROGRAM: run 'make demo', or 'cargo build --release' first"
  install_packages
  local port
  port=$(free_port)
  prepare_jobs "$port"
  # Settings of the caller's are not the demo's.
  unset "${!TIDEGATE_@}"
  # Shared by the daemon, which signs, and the app, which checks; another one each time.
  TIDEGATE_SECRETS__WEBAPP=$(node -p 'require("node:crypto").randomBytes(32).toString("hex")')
  export TIDEGATE_SECRETS__WEBAPP
  # In our place, so that a signal to us is one to it.
  exec "$PROGRAM" dev --config demo/config --jobs "$WORK/jobs" --log "$WORK/daemon.log" -- \
    node demo/app/drive.mjs --log "$WORK/daemon.log" --port "$port"
}

# What the lock file names, unless it is there already.
install_packages() {
  [ demo/app/node_modules/.package-lock.json -nt demo/app/package-lock.json ] && return
  echo "demo: installing the app's packages"
  npm ci --prefix demo/app --loglevel error >/dev/null || die "npm ci failed: is there a network?"
}

# A port below those the system hands out to clients, which nobody uses at the moment.
free_port() {
  node -e '
    const net = require("node:net");
    const attempt = (left) => {
      const port = 16384 + Math.floor(Math.random() * 16384);
      const server = net.createServer();
      server.once("error", () => (left > 0 ? attempt(left - 1) : process.exit(1)));
      server.listen(port, "127.0.0.1", () => server.close(() => console.log(port)));
    };
    attempt(20);
  ' || die "no free port was found"
}

# The definitions with the app's real port.
prepare_jobs() {
  rm -rf "$WORK"
  mkdir -p "$WORK/jobs"
  local file
  for file in demo/jobs/*.toml; do
    sed "s/127\.0\.0\.1:$WRITTEN_PORT/127.0.0.1:$1/" "$file" >"$WORK/jobs/${file##*/}"
  done
}

die() {
  echo "demo: $*" >&2
  exit 1
}

main "$@"
