//! The fixed shell scripts that run on a host.
//!
//! Each is sent as `sh -c SCRIPT sh ARG...`, so that what varies is a positional parameter and never
//! becomes shell text. The first line names the script and the version of its meaning: a simulator
//! recognises it by that line, and a change of meaning gets a new number. They need a POSIX shell and what
//! Debian and Ubuntu always have: coreutils, `cmp` (diffutils) and `flock` (util-linux).

/// The exit code of [`WRITE`] when content, owner and mode were right already.
pub const SAME: i32 = 80;
/// The exit code when there is no such file.
pub const ABSENT: i32 = 81;
/// The exit code when a directory stands where a file is meant.
pub const DIRECTORY: i32 = 82;
/// The exit code of [`WRITE`] when standard input ended early; nothing was changed.
pub const CUT_SHORT: i32 = 83;
/// The exit code of [`LOCK`] when another one holds the lock.
pub const TAKEN: i32 = 84;
/// The line that [`LOCK`] prints on standard output once it holds the lock.
pub const HELD: &str = "held";
/// How long, in seconds, [`LOCK`] lives without a byte on its standard input.
pub const LOCK_PATIENCE: u64 = 60;

/// Prints a file, up to a number of bytes.
///
/// * `$1` the absolute path; a symbolic link is followed. `$2` how many bytes at most.
/// * Standard output: the file's bytes.
/// * Exit: 0 printed, [`ABSENT`] no such file (or a link to nothing), [`DIRECTORY`] a directory.
pub const READ: &str = r#"# kubeline: read v1
[ -e "$1" ] || exit 81
[ -d "$1" ] && exit 82
exec head -c "$2" -- "$1"
"#;

/// Puts a file in place atomically, unless it is right already.
///
/// * `$1` the absolute path, `$2` the mode in octal without leading zeros (`644`, as `stat -c %a` prints
///   it), `$3` the owner, `$4` the group (names or numbers), `$5` the content's length in bytes.
/// * Standard input: the content, to its end. The length tells a whole content from the one that a lost
///   connection cut off.
/// * Missing parent directories are made, mode 0755. A symbolic link at `$1` is replaced by the file.
/// * The temporary name starts with a dot, so no `*.conf` include and no kubelet reads it half done.
/// * Exit: 0 written, [`SAME`] nothing was to do, [`DIRECTORY`] `$1` is a directory, [`CUT_SHORT`] fewer or
///   more bytes came than `$5` said; in these, and in any other code, `$1` is as it was.
pub const WRITE: &str = r#"# kubeline: write v1
set -eu
d=${1%/*}
[ -d "$1" ] && [ ! -L "$1" ] && exit 82
(umask 022; mkdir -p -- "$d/")
umask 077
t=$(mktemp -- "$d/.${1##*/}.XXXXXXXXXX")
trap 'rm -f -- "$t"' EXIT
trap 'exit 129' HUP INT TERM PIPE
cat >"$t"
[ "$(wc -c <"$t")" -eq "$5" ] || exit 83
chown -- "$3:$4" "$t"
chmod -- "$2" "$t"
if [ -f "$1" ] && [ ! -L "$1" ] &&
  [ "$(stat -c '%a %u %g' -- "$t")" = "$(stat -c '%a %u %g' -- "$1")" ] &&
  cmp -s -- "$t" "$1"
then
  exit 80
fi
sync -- "$t"
mv -fT -- "$t" "$1"
sync -- "$d/"
"#;

/// Prints a whole file.
///
/// * `$1` the absolute path; a symbolic link is followed.
/// * Exit: 0 printed, [`ABSENT`] no such file, [`DIRECTORY`] a directory.
pub const PRINT: &str = r#"# kubeline: print v1
[ -e "$1" ] || exit 81
[ -d "$1" ] && exit 82
exec cat -- "$1"
"#;

/// Takes a file of any size and puts it in place atomically once its digest is right.
///
/// * `$1` the absolute path, `$2` the mode in octal without leading zeros, `$3` the length in bytes, `$4` the SHA-256 in
///   lower-case hexadecimal digits. It becomes the user's that runs this: root's.
/// * Standard input: the content, to its end.
/// * Missing parent directories are made, mode 0700. What a machine that lost power left of an attempt has a name of
///   its own, so that the next attempt replaces it.
/// * Exit: 0 written, [`SAME`] it is there already and nothing was read, [`DIRECTORY`] a directory, [`CUT_SHORT`] other
///   bytes came than were announced; in these, and in any other code, `$1` is as it was.
pub const RECEIVE: &str = r#"# kubeline: receive v1
set -eu
[ -d "$1" ] && [ ! -L "$1" ] && exit 82
sum() { sha256sum <"$1" | cut -d' ' -f1; }
if [ -f "$1" ] && [ ! -L "$1" ] && [ "$(stat -c '%a %s' -- "$1")" = "$2 $3" ] && [ "$(sum "$1")" = "$4" ]; then
  exit 80
fi
d=${1%/*}
umask 077
mkdir -p -- "$d/"
t=$d/.${1##*/}.part
rm -f -- "$t"
trap 'rm -f -- "$t"' EXIT
trap 'exit 129' HUP INT TERM PIPE
cat >"$t"
[ "$(wc -c <"$t")" -eq "$3" ] || exit 83
[ "$(sum "$t")" = "$4" ] || exit 83
chmod -- "$2" "$t"
sync -- "$t"
mv -fT -- "$t" "$1"
sync -- "$d/"
"#;

/// Removes a file or a symbolic link.
///
/// * `$1` the absolute path; a link itself is removed, never what it points to.
/// * Exit: 0 removed, [`ABSENT`] there was none, [`DIRECTORY`] a directory, which stays.
pub const REMOVE: &str = r#"# kubeline: remove v1
[ -e "$1" ] || [ -L "$1" ] || exit 81
[ -d "$1" ] && [ ! -L "$1" ] && exit 82
rm -f -- "$1" && sync -- "${1%/*}/"
"#;

/// Holds the host's lock for as long as standard input lives.
///
/// * `$1` who takes it, one line, shown to whoever comes second.
/// * Standard input: a byte (not a newline) now and then; its end, or [`LOCK_PATIENCE`] seconds without
///   a byte (a client that vanished without closing), frees the lock.
/// * Standard output: the line [`HELD`] when the lock is held; the holder's line when it is taken.
/// * Exit: 0 held and freed again, [`TAKEN`] another one held it for two seconds (a holder that has just
///   ended may need a moment to be gone).
///
/// The lock is a `flock` on a file under /run, which only root writes to; /run/lock is for the unprivileged.
/// The kernel frees it with the process, so nothing is left to clean up.
pub const LOCK: &str = r#"# kubeline: lock v1
d=/run
[ -w "$d" ] || d=/run/lock
f=$d/kubeline.lock
exec 9>>"$f"
flock -w 2 -E 84 9
c=$?
if [ "$c" -ne 0 ]; then
  [ "$c" -eq 84 ] && cat "$f"
  exit "$c"
fi
printf '%s\n' "$1" >"$f"
echo held
while [ -n "$(timeout 60 head -c 1 9>&-)" ]; do :; done
: >"$f"
"#;
