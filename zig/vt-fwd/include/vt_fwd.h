/*
 * vt_fwd: terminal sessions for VibeTunnel, the C ABI of libvt_fwd: sessions inside the calling
 * process, and the formats they speak (frames, recordings, window titles, session.json).
 *
 * Thread safety: every function may be called from any thread at any time. Calls on one handle
 * come one after the other; vt_fwd_wait lets others through while it waits.
 *
 * Errors: a handle of 0 or a negative number; the code is also in vt_fwd_last_error() and its
 * cause and cure in vt_fwd_last_message(), one each per thread. Handles are numbers, not pointers:
 * one that was closed or made up is VT_FWD_ERROR_NO_HANDLE. No argument makes the library crash, as
 * long as each pointer is null or points to what its comment says.
 *
 * Text: `const char *` is NUL-terminated. A pointer with a length may hold any bytes; it may be
 * null where the length is 0.
 *
 * Results: a function with `out` and `out_cap` returns the length of its result. Where that does
 * not fit it writes nothing, changes nothing and returns VT_FWD_ERROR_BUFFER_TOO_SMALL;
 * vt_fwd_needed() then says how many bytes would do. `out` may not overlap the input.
 *
 * The process it runs in: no signal handler, umask, working directory or environment is changed.
 * Each session has one thread, which takes no signals. After fork() the child has no handles: all
 * sessions, decoders, recordings and filters are the parent's. A process that calls exit() or
 * returns from main ends its sessions first (see vt_fwd_shutdown); one that is killed leaves
 * session.json as a killed vibetunnel-fwd does: the terminal hangs up, and readers see that the
 * process is gone. Descriptors that the library has opened are its own: a process that closes all
 * there are must have no sessions. One that unloads the library keeps it, and its sessions go on.
 */
#ifndef VT_FWD_H
#define VT_FWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits ----------------------------------------------------------------------------- */

/* Handles of each kind at a time. */
#define VT_FWD_MAX_HANDLES 4096
#define VT_FWD_MAX_ID_BYTES 64
/* Longest payload of a frame of typed text, and of every other frame. */
#define VT_FWD_MAX_INPUT_BYTES 16777216
#define VT_FWD_MAX_PAYLOAD_BYTES 1048576
#define VT_FWD_FRAME_HEADER_BYTES 5
/* What a title filter may hold back from one call to the next. */
#define VT_FWD_MAX_HELD_BYTES 3
/* A session.json that is longer is not read. */
#define VT_FWD_MAX_SESSION_BYTES 1048576
/* Longest configuration of vt_fwd_start. */
#define VT_FWD_MAX_CONFIG_BYTES 8388608

/* ---- errors ----------------------------------------------------------------------------- */

enum vt_fwd_error {
    VT_FWD_OK = 0,
    VT_FWD_ERROR_NULL_POINTER = -1,
    VT_FWD_ERROR_NO_HANDLE = -2,        /* closed, made up, or the parent's before a fork */
    VT_FWD_ERROR_TOO_LONG = -3,         /* more bytes than the limit above */
    VT_FWD_ERROR_ARGUMENT = -4,         /* a number or text out of range */
    VT_FWD_ERROR_BUFFER_TOO_SMALL = -5, /* see vt_fwd_needed() */
    VT_FWD_ERROR_OUT_OF_MEMORY = -6,
    VT_FWD_ERROR_TOO_MANY_HANDLES = -7,
    VT_FWD_ERROR_SYSTEM = -8,           /* see the message */

    /* sessions */
    VT_FWD_ERROR_CONFIG = -20,            /* a key, its value, or the JSON; see the message */
    VT_FWD_ERROR_SESSION_IS_RUNNING = -21, /* one with this id */
    VT_FWD_ERROR_WORKING_DIRECTORY = -22, /* not there, or not to be entered */
    VT_FWD_ERROR_HOST_EXITS = -23,
    VT_FWD_ERROR_TIMEOUT = -24,           /* it still runs */

    /* formats */
    VT_FWD_ERROR_OVERSIZED = -40, /* a frame announces a length beyond the limit */
    VT_FWD_ERROR_JSON = -41,      /* not one JSON object */
    VT_FWD_ERROR_NO_SESSION = -42 /* no session.json there that can be read */
};

/* The code of this thread's latest error, which is then forgotten. */
int32_t vt_fwd_last_error(void);
/* Its cause and cure in a sentence; the thread's until its next error. "" before the first. */
const char *vt_fwd_last_message(void);
/* Room that this thread's latest VT_FWD_ERROR_BUFFER_TOO_SMALL asked for. */
uint64_t vt_fwd_needed(void);
/* "no_handle" and so on; static. */
const char *vt_fwd_error_name(int32_t code);
/* "0.1.0"; static. */
const char *vt_fwd_version(void);

/* ---- sessions in this process ----------------------------------------------------------- */

/* Starts a command on a pseudoterminal with a recording, a socket and a session.json, as
   vibetunnel-fwd does, and returns at once with the session's handle, or 0. The command runs, the
   socket can be connected to, and session.json says so. `config` is one JSON object in UTF-8:

     argv            the command and its words (required); those that are not UTF-8 need
                     vibetunnel-fwd
     cwd             where it runs (default: this process's working directory)
     env             its environment as an object (default: this process's); TERM and
                     VIBETUNNEL_SESSION_ID are set in either
     cols, rows      the terminal's size (default: 120 and 40)
     id              1 to 64 letters, digits, '_', '-' (default: fwd_<ms>_<pid>_<n>)
     name            (default: as vibetunnel-fwd names it)
     title_mode      "none" (default), or "filter", "static", "dynamic": window titles that
                     programs set are left out of the recording
     control_dir     (default: $VIBETUNNEL_CONTROL_DIR, else ~/.vibetunnel/control)
     record_input    false: nothing typed is recorded (default: all but passwords)
     max_cast_bytes  the recording ends at this size (default 0: no limit)
     git             false: do not ask git about the working directory (default: true)

   Other keys are refused. Of what is open in this process the command gets only its terminal. */
uint32_t vt_fwd_start(const uint8_t *config, size_t config_len);
/* The session's id. At most VT_FWD_MAX_ID_BYTES. */
int64_t vt_fwd_session_id(uint32_t session, uint8_t *out, size_t out_cap);
/* The command's process, which leads a session and a process group of its own; after its end the
   number may be another process's. */
int32_t vt_fwd_session_pid(uint32_t session);
/* The command's exit code (128 + n when signal n ended it) once all is on disk, as often as asked;
   VT_FWD_ERROR_TIMEOUT when it still runs after `timeout_ms`. Negative: waits for ever. 255 also
   stands for a code that this process's owner took away, by ignoring SIGCHLD or waiting for any
   child. */
int32_t vt_fwd_wait(uint32_t session, int64_t timeout_ms);
/* Asks the command to end: SIGTERM, after three seconds SIGKILL. The second call is SIGKILL at
   once. 0 also when it has ended. */
int32_t vt_fwd_stop(uint32_t session);
/* Sends signal 1 to 64 (macOS: 31) to the command's process group. 0 also when it has ended. */
int32_t vt_fwd_kill(uint32_t session, uint32_t signal);
/* Forgets the handle. A session that runs goes on, and cleans up after itself at its end. */
bool vt_fwd_close(uint32_t session);
/* Sessions of this process that run, closed handles included. */
uint32_t vt_fwd_running(void);
/* What exit() does, for hosts whose own exit skips it (Bun's does): ends all sessions, SIGHUP first
   and SIGKILL a second later, and waits two seconds at most. Nothing can be started afterwards. */
void vt_fwd_shutdown(void);

/* ---- frames: what a session's socket carries -------------------------------------------- */

#define VT_FWD_FRAME_INPUT 1u     /* typed text */
#define VT_FWD_FRAME_CONTROL 2u   /* a JSON object: {"cmd":"resize","cols":80,"rows":24} ... */
#define VT_FWD_FRAME_HEARTBEAT 4u

/* One frame: VT_FWD_FRAME_HEADER_BYTES and the payload. `type` is 0 to 255. */
int64_t vt_fwd_frame_encode(uint32_t type, const uint8_t *payload, size_t payload_len, uint8_t *out,
                            size_t out_cap);

typedef struct vt_fwd_frame {
    uint32_t type;    /* VT_FWD_FRAME_*, or 0: all bytes are used and no frame is whole */
    uint32_t last;    /* 0: more of this typed text follows */
    uint64_t used;    /* bytes of the input that were used */
    uint64_t payload; /* bytes written to `out` */
} vt_fwd_frame;

/* A decoder of one connection's bytes, or 0. */
uint32_t vt_fwd_decoder_create(void);
bool vt_fwd_decoder_destroy(uint32_t decoder);
/* Looks at `bytes` up to the next frame. Typed text comes as it arrives, at most `out_cap` bytes
   at a time; a control message comes whole; heartbeats come without payload; other frames are
   skipped. Call again with what was not used until the type is 0. VT_FWD_ERROR_OVERSIZED: the
   connection is beyond help, and every further call says so. After VT_FWD_ERROR_BUFFER_TOO_SMALL,
   which only a control message longer than `out_cap` causes, `frame->used` counts: the same
   message comes with the next call. */
int32_t vt_fwd_decoder_next(uint32_t decoder, const uint8_t *bytes, size_t len, uint8_t *out,
                            size_t out_cap, vt_fwd_frame *frame);

/* ---- recordings: asciinema v2 ------------------------------------------------------------ */

/* The time of an event: microseconds since the recording was created, or this for the clock's. */
#define VT_FWD_NOW UINT64_MAX

/* Creates or truncates the file `path`, private to its owner, and writes the header. `timestamp` is
   in seconds since 1970; `command` and `title` may be null. `max_bytes` 0: no limit; else a marker
   ends the recording there. Returns a handle or 0. */
uint32_t vt_fwd_cast_create(const char *path, uint32_t cols, uint32_t rows, int64_t timestamp,
                            const char *command, const char *title, uint64_t max_bytes);
/* Events. 0, or an error; after VT_FWD_ERROR_SYSTEM (a full disk) the file ends with a whole line.
   What is written is whole lines of valid UTF-8: half a character, and half an escape sequence for
   up to 50 ms and 4 KiB, wait for the next call. Times never run backwards. */
int32_t vt_fwd_cast_output(uint32_t cast, uint64_t time_us, const uint8_t *bytes, size_t len);
int32_t vt_fwd_cast_input(uint32_t cast, uint64_t time_us, const uint8_t *bytes, size_t len);
int32_t vt_fwd_cast_resize(uint32_t cast, uint64_t time_us, uint32_t cols, uint32_t rows);
int32_t vt_fwd_cast_marker(uint32_t cast, uint64_t time_us, const char *label);
/* Where a viewer may start: the byte after the line that cleared the screen last, or 0. */
int64_t vt_fwd_cast_clear_offset(uint32_t cast);
/* Writes what was held back and closes the recording. With an `id` the exit line that VibeTunnel
   expects ends it: `code` is 0 to 255. The handle is gone, also after an error. */
int32_t vt_fwd_cast_end(uint32_t cast, uint64_t time_us, uint32_t code, const char *id);

/* ---- window titles ------------------------------------------------------------------------ */

/* A filter that takes OSC 0, 1 and 2 out of a terminal's output, over any split; or 0. */
uint32_t vt_fwd_filter_create(void);
bool vt_fwd_filter_destroy(uint32_t filter);
/* What is left of `bytes`. Needs room for len + VT_FWD_MAX_HELD_BYTES. */
int64_t vt_fwd_filter_write(uint32_t filter, const uint8_t *bytes, size_t len, uint8_t *out,
                            size_t out_cap);
/* At the end of the output: what was held back. Needs room for VT_FWD_MAX_HELD_BYTES. */
int64_t vt_fwd_filter_end(uint32_t filter, uint8_t *out, size_t out_cap);

/* ---- session.json -------------------------------------------------------------------------- */

/* Reads a session.json as VibeTunnel's server does, and writes it as one JSON object with all of
   these members, null where one is missing or of another type: id (the parameter: the directory's
   name), name (without control characters), command, workingDir, status ("starting", "running" or
   "exited"), startedAt, pid, exitCode, initialCols, initialRows, lastClearOffset, version,
   attachedViaVT, gitRepoPath, gitBranch, gitMainRepoPath, gitAheadCount, gitBehindCount,
   gitHasChanges, gitIsWorktree. */
int64_t vt_fwd_session_parse(const char *id, const uint8_t *json, size_t json_len, uint8_t *out,
                             size_t out_cap);
/* The same of the session directory `path`. One that says "running" and whose process is gone is
   "exited" with code 1, as the server has it; the file is not changed. */
int64_t vt_fwd_session_read(const char *path, uint8_t *out, size_t out_cap);

#ifdef __cplusplus
}
#endif

#endif
