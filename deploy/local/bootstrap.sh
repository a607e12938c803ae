#!/bin/sh
# Provides what the local stack and the tests need, and nothing twice:
#   JDK >= 17, Maven, Postgres >= 14, MariaDB >= 10.6, npm (unless a clickhouse binary is on PATH), uv, and .venv by uv.lock.
# On Debian and Ubuntu missing packages are installed (as root, or by sudo), without starting or enabling a database service
# and without creating a database cluster. Elsewhere, or when that fails, it says what is missing and how to get it: exit 2.
#
#   bootstrap.sh           do it
#   bootstrap.sh --check   only say what is missing (exit 2 if anything is); changes nothing
#   bootstrap.sh --uv      print the uv to use
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${CHRONICLE_CACHE:-$HOME/.cache/chronicle}
began=$(date +%s)
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps database servers
export PATH

say() { printf 'bootstrap: %3s s  %s\n' "$(($(date +%s) - began))" "$*" >&2; }
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit 2
}

# -- what is there ---------------------------------------------------------------------------------------------------------

# The first number of a text like "openjdk version "17.0.15"" or "1.8.0".
major() { printf '%s\n' "$1" | sed -n 's/^[^0-9]*\([0-9][0-9]*\).*/\1/p' | head -n 1; }

java_program() { if [ -n "${JAVA_HOME:-}" ] && [ -x "$JAVA_HOME/bin/$1" ]; then echo "$JAVA_HOME/bin/$1"; else command -v "$1"; fi; }
has_jdk() {
    javac=$(java_program javac) && java_program java >/dev/null || return 1
    version=$(major "$("$javac" -version 2>&1)")
    [ -n "$version" ] && [ "$version" -ge 17 ]
}
has_maven() { command -v mvn >/dev/null; }
has_postgres() {
    for program in /usr/lib/postgresql/*/bin/initdb "$(command -v initdb)"; do
        if [ -x "$program" ]; then
            version=$(major "$("$program" --version 2>/dev/null)")
            [ -n "$version" ] && [ "$version" -ge 14 ] && return 0
        fi
    done
    return 1
}
has_mariadb() {
    command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null && command -v my_print_defaults >/dev/null || return 1
    version=$(mariadbd --version 2>/dev/null | sed -n 's/.*Ver \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086 # two words on purpose
    set -- $version
    [ $# -eq 2 ] && { [ "$1" -gt 10 ] || { [ "$1" -eq 10 ] && [ "$2" -ge 6 ]; }; }
}
has_npm() { command -v clickhouse >/dev/null || command -v npm >/dev/null; }
# Postgres and MariaDB refuse to run as root: then they drop to these accounts
has_account() { [ "$(id -u)" -ne 0 ] || getent passwd "$1" >/dev/null; }
has_postgres_account() { has_account postgres; }
has_mariadb_account() { has_account mysql; }
uv_program() {
    # a shim may be on PATH and yet not run
    for program in "$(command -v uv)" "$cache/uv/bin/uv" "$HOME/.local/bin/uv"; do
        if [ -n "$program" ] && [ -x "$program" ] && "$program" --version >/dev/null 2>&1; then
            echo "$program"
            return 0
        fi
    done
    return 1
}
# a Python whose venv module brings pip (Debian packs that apart), unless uv is there already
has_python() { uv_program >/dev/null || python3 -c 'import venv, ensurepip' >/dev/null 2>&1; }

missing() {
    for need in jdk maven postgres postgres_account mariadb mariadb_account npm python; do
        "has_$need" || printf '%s ' "$need"
    done
}

explain() {
    for need in "$@"; do
        case $need in
        jdk) echo "JDK 17 or newer: package openjdk-17-jdk-headless, or https://adoptium.net with JAVA_HOME set" ;;
        maven) echo "Maven: package maven, or https://maven.apache.org/download.cgi" ;;
        postgres) echo "Postgres 14 or newer, the server: package postgresql; initdb and postgres on PATH or in /usr/lib/postgresql" ;;
        postgres_account) echo "an account that Postgres runs as: adduser --system --group postgres (or be no root)" ;;
        mariadb) echo "MariaDB 10.6 or newer, the server: package mariadb-server; mariadbd and mariadb-install-db on PATH" ;;
        mariadb_account) echo "an account that MariaDB runs as: adduser --system --group mysql (or be no root)" ;;
        npm) echo "npm, or a clickhouse binary on PATH: package npm, or https://nodejs.org" ;;
        python) echo "uv: https://docs.astral.sh/uv, pipx install uv, or a python3 with venv (package python3-venv)" ;;
        esac
    done
}

# -- installing ------------------------------------------------------------------------------------------------------------

# The first of some packages that this distribution has.
available() {
    for package in "$@"; do
        if apt-cache show --no-all-versions "$package" 2>/dev/null | grep -q '^Version:'; then
            echo "$package"
            return 0
        fi
    done
    return 1
}

packages_for() {
    case $1 in
    jdk) available openjdk-21-jdk-headless openjdk-17-jdk-headless openjdk-25-jdk-headless default-jdk-headless ;;
    maven) echo maven ;;
    postgres | postgres_account) echo postgresql ;;
    # the core package is the server's programs alone: no service, no data directory. Older Ubuntus number it.
    mariadb) echo "$(available mariadb-server-core mariadb-server-core-10.6) $(available mariadb-client-core mariadb-client-core-10.6) passwd" ;;
    mariadb_account) echo passwd ;;
    npm) echo npm ;;
    python) echo "python3 python3-venv" ;;
    esac
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -- "$@"; fi; }

can_be_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null && return 0
    [ -t 0 ] && say "sudo may ask for your password, to install: $*" && sudo -v
}

# While packages are set up: no service starts (policy-rc.d, removed afterwards; somebody else's is respected), and
# postgresql makes no main cluster (a drop-in that stays, since a later upgrade would ask again).
guard_on() {
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        guard_made=yes
        trap guard_off EXIT
        trap 'exit 130' INT TERM HUP
        as_root sh -c 'printf "#!/bin/sh\n# chronicle bootstrap: start no service now\nexit 101\n" > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d'
    fi
    case " $1 " in
    *" postgresql "*)
        if ! dpkg-query -W -f '${Status}' postgresql-common 2>/dev/null | grep -q 'ok installed'; then
            as_root sh -c 'mkdir -p /etc/postgresql-common/createcluster.d &&
                printf "# chronicle: it runs clusters of its own; a system-wide one was not asked for\ncreate_main_cluster = false\n" \
                    > /etc/postgresql-common/createcluster.d/chronicle.conf'
        fi
        ;;
    esac
}
guard_off() {
    if [ "${guard_made:-no}" = yes ]; then
        as_root rm -f /usr/sbin/policy-rc.d
        guard_made=no
    fi
}

install_missing() {
    if ! command -v apt-get >/dev/null || [ ! -e /etc/debian_version ]; then
        explain_and_fail "install these by your system's means (only Debian and Ubuntu are automatic):" "$@"
    fi
    can_be_root "$@" || explain_and_fail "install these as root (this account cannot use sudo):" "$@"
    say "missing: $* (updating package lists)"
    log=$(mktemp)
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >"$log" 2>&1 || say "apt-get update: $(tail -n 1 "$log")"
    packages=
    for need in "$@"; do
        packages="$packages $(packages_for "$need")"
    done
    packages=$(printf '%s\n' $packages | sort -u | tr '\n' ' ')
    say "installing $packages(some minutes on a fresh machine)"
    guard_on "$packages"
    # shellcheck disable=SC2086 # a list of packages
    { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends --no-remove install $packages; echo $? >"$log.rc"; } 2>&1 |
        tee "$log" |
        while IFS= read -r line; do
            case $line in
            "Need to get"*) say "$line" ;;
            "Setting up "*) done_packages=$((${done_packages:-0} + 1)) && [ $((done_packages % 40)) -eq 0 ] && say "$done_packages packages set up" ;;
            esac
        done
    if [ "$(cat "$log.rc")" != 0 ]; then
        guard_off
        tail -n 15 "$log" >&2
        explain_and_fail "apt-get could not install these (its last lines are above):" "$@"
    fi
    guard_off
    if ! getent passwd mysql >/dev/null && [ "$(id -u)" -eq 0 ]; then
        say "making the account mysql, as MariaDB's own package would"
        groupadd --system mysql 2>/dev/null
        useradd --system --gid mysql --home-dir /nonexistent --no-create-home --shell /bin/false mysql
    fi
    rm -f "$log" "$log.rc"
    left=$(missing)
    # shellcheck disable=SC2086 # a list of needs
    [ -z "$left" ] || explain_and_fail "these are still missing, or too old in this distribution:" $left
}

explain_and_fail() {
    first=$1
    shift
    explain "$@" >"${TMPDIR:-/tmp}/chronicle-bootstrap.$$"
    set --
    while IFS= read -r line; do set -- "$@" "$line"; done <"${TMPDIR:-/tmp}/chronicle-bootstrap.$$"
    rm -f "${TMPDIR:-/tmp}/chronicle-bootstrap.$$"
    fail "$first" "$@"
}

install_uv() {
    say "installing uv from PyPI into $cache/uv"
    if ! { python3 -m venv "$cache/uv" && "$cache/uv/bin/pip" --quiet --disable-pip-version-check install uv; } >&2; then
        rm -rf "$cache/uv"
        fail "uv could not be installed from PyPI; get it by one of:" "pipx install uv" "https://docs.astral.sh/uv"
    fi
}

# --------------------------------------------------------------------------------------------------------------------------

case ${1:-} in
--uv)
    uv_program || fail "run make demo (or deploy/local/bootstrap.sh) first: there is no uv"
    exit 0
    ;;
--check)
    left=$(missing)
    # shellcheck disable=SC2086 # a list of needs
    [ -z "$left" ] || explain_and_fail "missing:" $left
    say "nothing is missing"
    exit 0
    ;;
'') ;;
*) fail "use no argument, --check or --uv: '$1' is neither" ;;
esac

left=$(missing)
# shellcheck disable=SC2086 # a list of needs
[ -z "$left" ] || install_missing $left
uv_program >/dev/null || install_uv
uv=$(uv_program) || fail "uv does not run; get it from https://docs.astral.sh/uv"
say "Python packages by uv.lock ($("$uv" --version))"
(cd "$root" && "$uv" sync --quiet --locked --all-extras) || fail "read uv's message above: the Python packages could not be installed" \
    "uv needs PyPI, and a Python 3.11 or newer (Debian 12, Ubuntu 24.04: python3; Ubuntu 22.04: package python3.11)"
say "ready"
