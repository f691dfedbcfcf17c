#!/bin/sh
# Installs the bundle that this script lies in, on a board with or without dpkg. Run as root; safe to run again.
#
#   ./install.sh [--enrolment FOLDER] [--root DIR] [--no-start] [--undo-after SECONDS]
#
# FOLDER is what `twin-host enroll` wrote for this board. With --root everything goes below DIR and nothing is started.
# With --undo-after an upgrade that is not connected to its host by then gives way to the agent it replaced.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root= enrolment= start=yes undo_after=
while [ $# -gt 0 ]; do
    case $1 in
        --enrolment | --root | --undo-after) [ $# -gt 1 ] || { echo "install.sh: $1 wants a value" >&2; exit 2; } ;;
    esac
    case $1 in
        --enrolment) enrolment=$2; shift 2 ;;
        --root) root=$2; start=no; shift 2 ;;
        --no-start) start=no; shift ;;
        --undo-after)
            case $2 in '' | *[!0-9]*) echo "install.sh: --undo-after wants seconds" >&2; exit 2 ;; esac
            undo_after=$2; shift 2 ;;
        *) echo "install.sh: unknown argument $1" >&2; exit 2 ;;
    esac
done

say() { echo "install.sh: $*"; }
fail() { echo "install.sh: $*" >&2; exit 1; }

[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run as root"
if [ -n "$enrolment" ] && [ ! -f "$enrolment/agent.toml" ]; then
    fail "$enrolment has no agent.toml: is it what twin-host enroll wrote?"
fi

# Puts a file in place whole or not at all: power may fail at any moment.
put() { # MODE SOURCE TARGET
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

if [ -z "$root" ] && ! id twin-agent >/dev/null 2>&1; then
    if command -v useradd >/dev/null 2>&1; then
        useradd --system --user-group --home-dir /var/lib/twin-agent --no-create-home --shell /usr/sbin/nologin twin-agent
    else
        addgroup -S twin-agent && adduser -S -D -H -h /var/lib/twin-agent -G twin-agent twin-agent
    fi
    say "made the user twin-agent"
fi

if [ -f "$here/bin/twin-agent" ]; then
    # What cannot start here must not replace what can.
    [ -n "$root" ] || "$here/bin/twin-agent" --version >/dev/null || fail "this bundle's twin-agent does not run on this board ($(uname -m))"
    # An upgrade over one that has not proved itself goes back to the last agent that had.
    if [ -n "$undo_after" ] && [ -f "$root/usr/bin/twin-agent" ] && [ ! -f "$root/usr/lib/twin-agent/twin-agent.previous" ] &&
        ! cmp -s "$here/bin/twin-agent" "$root/usr/bin/twin-agent"; then
        put 755 "$root/usr/bin/twin-agent" "$root/usr/lib/twin-agent/twin-agent.previous"
    fi
    put 755 "$here/bin/twin-agent" "$root/usr/bin/twin-agent"
    put 755 "$here/undo-upgrade" "$root/usr/lib/twin-agent/undo-upgrade"
    put 644 "$here/twin-agent.service" "$root/usr/lib/systemd/system/twin-agent.service"
    put 644 "$here/README.md" "$root/usr/share/doc/twin-agent/README.md"
    put 644 "$here/agent.toml.default" "$root/usr/share/doc/twin-agent/agent.toml.default"
    say "installed twin-agent"
fi
if [ -f "$here/bin/twin-trainer" ]; then
    put 755 "$here/bin/twin-trainer" "$root/usr/lib/twin-agent/twin-trainer"
    for library in "$here"/lib/*; do
        copy="$root/usr/lib/twin-agent/lib/$(basename "$library")"
        # One file by two names must stay one, or it is loaded twice.
        if [ -L "$library" ]; then ln -sfn "$(readlink "$library")" "$copy"; else put 755 "$library" "$copy"; fi
    done
    # Says what is there, so that the same 300 MB are not sent again.
    put 644 "$here/trainer.sha256" "$root/usr/lib/twin-agent/trainer.sha256"
    say "installed twin-trainer"
fi

if [ -n "$enrolment" ]; then
    for file in "$enrolment"/*; do
        case $file in
            *.toml|*.crt) mode=640 ;;
            *) mode=600 ;;
        esac
        put "$mode" "$file" "$root/etc/twin-agent/$(basename "$file")"
    done
    chmod 750 "$root/etc/twin-agent"
    [ -n "$root" ] || chown -R twin-agent:twin-agent /etc/twin-agent
    say "enrolled as $(sed -n 's/^name *= *"\(.*\)"/\1/p' "$root/etc/twin-agent/agent.toml" | head -n 1)"
fi

[ "$start" = yes ] || exit 0
if [ ! -d /run/systemd/system ]; then
    say "systemd does not run here: have your init run '/usr/bin/twin-agent run --config /etc/twin-agent/agent.toml' as twin-agent"
    exit 0
fi
systemctl daemon-reload
systemctl enable --quiet twin-agent.service
if [ ! -f /etc/twin-agent/agent.toml ]; then
    say "not enrolled yet: copy the folder that twin-host enroll wrote, and run this with --enrolment FOLDER"
    exit 0
fi
if [ -n "$undo_after" ] && [ -f /usr/lib/twin-agent/twin-agent.previous ]; then
    # The board watches by itself: that needs neither the network nor whoever deploys, and outlives a power cut.
    former=$(systemctl show --property=InvocationID --value twin-agent.service)
    systemctl stop twin-agent-undo.service 2>/dev/null || :
    cat >/etc/systemd/system/twin-agent-undo.service <<UNIT
[Unit]
Description=Puts the former Twinstill agent back unless the upgraded one is connected within $undo_after s

[Service]
ExecStart=/usr/lib/twin-agent/undo-upgrade $undo_after ${former:-none}

[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet twin-agent-undo.service
    say "the former agent comes back unless this one is connected within $undo_after s"
fi
systemctl restart --no-block twin-agent.service
if [ -f /etc/systemd/system/twin-agent-undo.service ]; then systemctl start --no-block twin-agent-undo.service; fi
say "started"
