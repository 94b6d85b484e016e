/*
 * plue_ssh: a Git server over SSH, inside your process.
 *
 * One server per process. It listens, authenticates clients by public key, and runs
 * git-upload-pack and git-receive-pack for them on background threads; nothing else.
 * Everything that is not allowed explicitly is refused.
 *
 *   plue_ssh_configure("{\"repositories\": \"/srv/git\"}");
 *   plue_ssh_keys_add("alice", "ssh-ed25519 AAAA...", "write alice/" "*\nread *");
 *   if (!ssh_server_start(2222, "/etc/plue/ssh_host_ed25519_key"))
 *       fputs(plue_ssh_last_error(), stderr);
 *   ...
 *   ssh_server_stop();
 *
 * Conventions
 *   - Strings are UTF-8 and NUL-terminated. An argument is borrowed for the length of the call
 *     and copied where it is kept. NULL is an error, never a crash, unless a function allows it.
 *   - Functions that fill a buffer write at most `capacity` bytes including the final NUL.
 *     The library hands out no memory that the caller must free.
 *   - Unless a function says otherwise it may be called from any thread at any time,
 *     from inside a callback too. No lock of the library is held while a callback runs.
 *   - A false result has its reason, with the cure, in plue_ssh_last_error() of that thread.
 */
#ifndef PLUE_SSH_H
#define PLUE_SSH_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The longest JSON record, with its final NUL, of a decision, an event or the counters. */
#define PLUE_SSH_RECORD_MAX 32768

/* The longest principal in bytes, without its NUL. */
#define PLUE_SSH_PRINCIPAL_MAX 255

/* ---------------------------------------------------------------- the server -------------- */

/*
 * Binds `port` (0 picks a free one, see plue_ssh_port) and serves in background threads.
 * `host_key_path` names the private host key: generated (ed25519, mode 0600) when the file is
 * missing, refused when group or others may read it. Needs plue_ssh_configure before.
 * false: nothing was started and nothing is left running; plue_ssh_last_error() says why.
 * Calls of start and stop wait for one another.
 */
bool ssh_server_start(uint16_t port, const char *host_key_path);

/*
 * Closes the listener, refuses new work, lets running gits finish for "drain_timeout_s", then
 * closes all connections, sends SIGTERM and, after "kill_grace_s", SIGKILL to the gits' process
 * groups. Returns when all threads have ended and all children are reaped. Does nothing when no
 * server runs. Decisions that are pending are answered with no. Waits for a callback that is
 * running. From inside a callback it only begins to stop and returns; a later call waits.
 */
void ssh_server_stop(void);

/*
 * Begins to stop, as ssh_server_stop does, and returns at once. true: all gits and connections
 * have ended, or no server runs, and ssh_server_stop will return at once. For a host that must not
 * wait: call it again and again until it is true, then stop.
 */
bool plue_ssh_server_drain(void);

/*
 * A callback that decides who may connect: true lets the key in as the principal
 * "SHA256:<fingerprint>". NULL removes it. `pubkey_base64` is the key's blob in base64, the second
 * word of an OpenSSH line; it is asked about only after the client has proved to own the key.
 * Called on a decision thread of the server (see "callback_threads"), never for a key in the
 * key table.
 * The answer must arrive within "decision_timeout_ms": a later one counts as no.
 * Not for Bun, whose threadsafe callbacks cannot return a value: use the decision queue.
 */
void ssh_set_auth_callback(bool (*cb)(const char *username, const char *pubkey_base64));

/* Number of authenticated connections right now. */
uint32_t ssh_get_connection_count(void);

/* The port in use, 0 when no server runs. */
uint16_t plue_ssh_port(void);

/* Why the last failing call in this thread failed; "" at first. Never NULL. Borrowed: valid in
 * this thread until its next call of a function of this library. */
const char *plue_ssh_last_error(void);

/* This library's version, such as "0.1.0", and the version of libssh it runs on. Static. */
const char *plue_ssh_version(void);
const char *plue_ssh_libssh_version(void);

/* ---------------------------------------------------------------- configuration ----------- */

/*
 * Takes one JSON object; the whole configuration is replaced, keys left out have their default.
 * An unknown key, a wrong type or a value out of range is refused and nothing changes. Takes
 * effect at the next ssh_server_start.
 *
 *   repositories               string   required. Directory that holds the repositories.
 *                                       "alice/repo" and "alice/repo.git" both name
 *                                       <repositories>/alice/repo.git if there is one,
 *                                       otherwise <repositories>/alice/repo; each bare or with
 *                                       a .git directory. Symbolic links beneath it are refused,
 *                                       and so is a repository inside another: one that is
 *                                       reached through a repository or a folder with a .git.
 *   bind_address               string   "127.0.0.1". A numeric IPv4 or IPv6 address.
 *   user                       string   "git". The only user name that may log in.
 *   git                        string   "git". Absolute path, or a name searched in PATH once.
 *   host_keys                  array    []. Paths of more host keys (an RSA one for old
 *                                       clients); they must exist, mode 0600.
 *   proxy_protocol_from        array    []. Addresses and networks ("10.0.0.0/8") of load
 *                                       balancers. Who connects from there must begin with a
 *                                       PROXY header, version 1 or 2, within login_grace_s; the
 *                                       client's address is then the one in it, or the load
 *                                       balancer's for LOCAL, UNKNOWN and other than TCP.
 *   threads                    integer  0 = min(cores, 4); up to 64. Event loops.
 *
 *   authenticate               string   "auto". Who decides about a key that is not in the table:
 *                                       "keys" nobody, refused; "callback"; "queue"; "auto" the
 *                                       callback when one is set, else nobody.
 *   authorize                  string   "auto". The same for "may this principal read or write
 *                                       this repository", for principals without rules.
 *   default_access             string   "none". "none", "read" or "write": the answer where
 *                                       nobody is there to authorize.
 *   decision_timeout_ms        integer  10000, 1 to 600000. No answer by then means no.
 *   callback_threads           integer  1, up to 16. With 1, callbacks never run concurrently.
 *   max_pending_decisions      integer  4096, up to 65536. More are refused at once.
 *
 *   login_grace_s              integer  30, 1 to 3600. From accept to authenticated, all in all.
 *   max_auth_tries             integer  6, 1 to 100. Refused keys and methods, `none` apart.
 *   max_connections            integer  4096, 1 to 65536.
 *   max_unauthenticated        integer  1024, 1 to 65536. Connections before authentication.
 *   max_unauthenticated_per_ip integer  256, 1 to 65536. The same from one address (IPv6: /64).
 *   max_channels               integer  10, 1 to 1000. Channels open at once on a connection.
 *   keepalive_s                integer  15, 0 to 86400; 0 = off. Asks a silent client for a sign of
 *                                       life; any byte from it is one.
 *   keepalive_count            integer  3, 1 to 1000. Unanswered ones before the connection ends.
 *   exec_grace_s               integer  60, 0 to 86400; 0 = off. From authenticated to the first
 *                                       command.
 *   idle_timeout_s             integer  600, 0 to 86400; 0 = off. Connection without a running git.
 *   git_timeout_s              integer  0 = off, up to 604800. Wall time of one git, which is then
 *                                       ended with SIGTERM, later SIGKILL.
 *   drain_timeout_s            integer  10, 0 to 3600. See ssh_server_stop.
 *   kill_grace_s               integer  5, 0 to 600. Between SIGTERM and SIGKILL.
 *   push_grace_s               integer  60, 0 to 86400. For git and its hooks to finish a push
 *                                       that arrived whole although its client has left.
 *
 *   archive                    boolean  false. Allow git-upload-archive (needs read).
 *   fsck_objects               boolean  true. receive.fsckObjects: check what is pushed.
 *   git_config                 object   {}. More configuration for git ("-c key=value"), strings;
 *                                       later than the built-in ones, so it wins.
 *   environment                object   {}. More environment for git and its hooks, strings. They
 *                                       always get PLUE_USER (principal), PLUE_REPO (name
 *                                       without .git) and PLUE_ADDRESS; nothing of the host's,
 *                                       of the client's only GIT_PROTOCOL.
 *
 *   kex, ciphers, macs, host_key_algorithms, user_key_algorithms
 *                              string   comma-separated OpenSSH names, most wanted first. Names
 *                                       that this libssh lacks are left out of the defaults, as
 *                                       is AES-GCM before libssh 0.12.2 (CVE-2026-59847); an own
 *                                       list with a missing name is refused at start.
 *   rsa_min_bits               integer  2048, 2048 to 16384. For user and host keys.
 *   rekey_bytes                integer  0 = libssh's default, else 65536 to 2^40.
 *   rekey_s                    integer  0 = off, else 10 to 86400.
 *   event_queue                integer  1024, 0 to 65536. Events kept for plue_ssh_event_next.
 *   push_queue                 integer  0 = off, up to 65536. Notices of pushes kept for
 *                                       plue_ssh_push_next; see there what happens when it is
 *                                       full. At most 64 MB, and 16 MB of one push.
 */
bool plue_ssh_configure(const char *json);

/* ---------------------------------------------------------------- key table --------------- */

/*
 * The table of authorised keys: kept across stop and start, changes count at once for new
 * logins and new commands of running connections (a removed key gets no new command).
 * Looked up by SHA-256 fingerprint, and the whole blob is compared; nothing in the host is called.
 *
 * `key_line` is an OpenSSH public key line, "type base64 [comment]", without options.
 * `rules` has one rule a line, "read PATTERN" or "write PATTERN" (write includes read). PATTERN
 * is a repository name without ".git", or a prefix ending in "/" and "*", or "*" for all. The
 * rules are final: what none allows is refused. NULL: no rules, "authorize" decides.
 * A key belongs to one principal; adding it again for the same one replaces its rules.
 */
bool plue_ssh_keys_add(const char *principal, const char *key_line, const char *rules);

/* Removes one key. false when it was not there. */
bool plue_ssh_keys_remove(const char *key_line);

/* Replaces the whole table, all or nothing. JSON array of
 *   {"principal": "alice", "keys": ["ssh-ed25519 AAAA..."], "rules": ["read *"]}
 * where "rules" may be left out or null. */
bool plue_ssh_keys_replace(const char *json);

void plue_ssh_keys_clear(void);
uint32_t plue_ssh_keys_count(void);

/* ---------------------------------------------------------------- callbacks --------------- */

/*
 * As ssh_set_auth_callback, with the whole key and an own principal: takes precedence over it.
 * `key_line` is "type base64", `fingerprint` "SHA256:...". On true the callback may write a
 * NUL-terminated principal of up to PLUE_SSH_PRINCIPAL_MAX bytes (UTF-8, no control characters)
 * to `principal`, which holds "" before; left empty it becomes the fingerprint.
 */
void plue_ssh_set_authenticate_callback(bool (*cb)(const char *username, const char *key_line,
                                                   const char *fingerprint, char *principal,
                                                   uint32_t capacity));

/* May `principal` read (or write) `repository`, a name without ".git" such as "alice/repo"?
 * Asked for every command, before the repository is looked for. Same threads and deadline. */
void plue_ssh_set_authorize_callback(bool (*cb)(const char *principal, const char *repository,
                                                bool write));

/* ---------------------------------------------------------------- decision queue ---------- */

/*
 * For hosts that cannot return a value from a foreign thread (Bun): with "authenticate" or
 * "authorize" set to "queue" the server puts its questions here. Take them until 0 comes, answer
 * in any order and from any thread. `notify` (void, no arguments; NULL removes it) runs on a
 * server thread whenever a question was added: it may come late or for nothing, so also poll now
 * and then. An `async` function of the host may take its time, up to "decision_timeout_ms".
 *
 * plue_ssh_decision_next: takes the oldest question; returns its id, 0 when there is none (or
 * `capacity` is below PLUE_SSH_RECORD_MAX, see the last error). JSON, one of
 *   {"id":7,"kind":"authenticate","user":"git","key":"ssh-ed25519 AAAA...",
 *    "fingerprint":"SHA256:...","address":"10.0.0.1","connection":3}
 *   {"id":8,"kind":"authorize","principal":"alice","repository":"alice/repo","write":true,
 *    "fingerprint":"SHA256:...","address":"10.0.0.1","connection":3}
 *
 * plue_ssh_decision_reply: `principal` names the client for an authenticate question (NULL or "":
 * the fingerprint); it is ignored for authorize. false when the id is unknown, answered already
 * or too late, or when the principal is no good (the question is then still open).
 */
void plue_ssh_set_decision_notify(void (*notify)(void));
uint32_t plue_ssh_decision_next(char *json, uint32_t capacity);
bool plue_ssh_decision_reply(uint32_t id, bool allow, const char *principal);

/* ---------------------------------------------------------------- pushes ------------------ */

/*
 * What has been pushed, for a host that keeps something in step with its repositories. With
 * "push_queue" above 0 every git-receive-pack that has updated references leaves a notice here
 * when it has ended, and nothing is dropped: while so many wait, new pushes are refused before they
 * begin (queue_full); those that run already are let finish. Notices outlive ssh_server_stop, not
 * the process: at its own start a host looks for itself.
 *
 * plue_ssh_push_next: returns the length in bytes, without the NUL, of the oldest notice that is
 * not done, 0 when there is none. It is written to `json` if `capacity` has room for it and its
 * NUL; else nothing is, and the call is to be repeated with more (NULL and 0 only ask). The same
 * notice comes again until plue_ssh_push_done. JSON:
 *   {"id":9,"event":"push","repository":"alice/repo","path":"/srv/git/alice/repo.git",
 *    "principal":"alice","fingerprint":"SHA256:...","address":"10.0.0.1","connection":3,
 *    "time":1700000000.123456,"confirmed":true,
 *    "updates":[{"ref":"refs/heads/main","old":"<id or zeros>","new":"<id or zeros>"}]}
 * "updates" are exactly the references that git reported as updated, in the order it was asked
 * for; zeros stand for "not there" (created, deleted). "confirmed" false: git's report was not
 * heard, because it was killed or its client wanted none; then they are all that it was asked
 * for and did not report as refused: compare with the repository. As to a post-receive hook, a
 * symbolic reference is told by its own name. Of a deletion whose "old" is no object of the
 * repository git checks nothing, and neither is it known here. Bytes of names that are no UTF-8
 * are written as the lone surrogates U+DC80 to U+DCFF.
 *
 * plue_ssh_push_done: the notice with this "id" is not needed any more; the next one can be
 * taken. false when it is not the oldest.
 *
 * `notify` (void, no arguments; NULL removes it) runs on a server thread whenever a notice was
 * added: it may come late or for nothing, so also poll now and then.
 */
void plue_ssh_set_push_notify(void (*notify)(void));
uint32_t plue_ssh_push_next(char *json, uint32_t capacity);
bool plue_ssh_push_done(uint32_t id);

/* ---------------------------------------------------------------- events, counters -------- */

/*
 * plue_ssh_event_next: takes the oldest event; returns its length in bytes without the NUL, 0 when
 * there is none (or `capacity` is below PLUE_SSH_RECORD_MAX). Events beyond "event_queue" are
 * dropped and counted. `notify` as in the decision queue; for "listening" and "stopped" it runs on
 * the thread that starts or stops the server.
 *
 * Every event has "time" (Unix seconds, fractional), "level" ("debug", "info", "warning",
 * "error") and "event"; most have "connection" (a number unique in the process) and "address".
 * What is unknown is left out. Never a private key, a whole public key, or a byte of a repository.
 *
 *   listening        port, address (bound to)
 *   stopped
 *   accepted         proxy: the load balancer's address, where there is one
 *   refused          reason: max_connections | max_unauthenticated | max_unauthenticated_per_ip |
 *                    proxy_missing | proxy_malformed | proxy_timeout | proxy_closed (no PROXY
 *                    header; address is the load balancer's) | or what the system said (memory,
 *                    descriptors)
 *   authenticated    user, principal, fingerprint, key_type
 *   auth_failed      reason: wrong_user | unknown_key | denied | timeout | queue_full | weak_key |
 *                    key_type | bad_signature | not_touched | method; user, fingerprint, key_type,
 *                    detail
 *   command          principal, repository, service, write, channel
 *   command_refused  reason: syntax | service | path | denied | timeout | queue_full | not_found |
 *                    not_allowed | spawn | stopping | too_many_references | resources;
 *                    principal, repository
 *   request_refused  request: shell | pty-req | subsystem | x11-req | direct-tcpip | ...; principal
 *   finished         principal, repository, service, exit_status or signal, duration_ms,
 *                    bytes_in, bytes_out
 *   abandoned        the client left while its git was at work, which is ended (a push that has
 *                    arrived whole may finish, see push_grace_s): principal,
 *                    repository, service, duration_ms, bytes_in, bytes_out
 *   pushed           principal, repository, references (how many were updated), confirmed; see
 *                    plue_ssh_push_next
 *   disconnected     reason: client | kex | login_grace | max_auth_tries | pre_auth_limit |
 *                    keepalive | exec_grace | idle | protocol | window | resources | stopping;
 *                    principal, duration_ms, detail (libssh's words, with both lists when no
 *                    algorithm is common)
 *   error            detail
 */
void plue_ssh_set_event_notify(void (*notify)(void));
uint32_t plue_ssh_event_next(char *json, uint32_t capacity);

/*
 * Writes a JSON object and returns its length without the NUL, 0 when `capacity` is below
 * PLUE_SSH_RECORD_MAX. Integers:
 *   gauges    connections, authenticated, gits_running, decisions_pending, pushes_waiting, keys
 *   counters  from the process's start: accepted_total, refused_total, authenticated_total,
 *             auth_failed_total, commands_total, commands_refused_total, gits_failed_total (exit
 *             status not 0), bytes_in_total, bytes_out_total (channel data), pushes_total,
 *             pushes_lost_total (no memory for the notice, which is an error event),
 *             decisions_total, decisions_timeout_total, events_dropped_total
 * Objects of counters, each key there from the start:
 *   refused_by_reason, auth_failed_by_reason, commands_refused_by_reason, disconnected_by_reason
 *             the reasons are those of the events; refused_by_reason has "resources" for what the
 *             system said
 *   commands_by_service, durations_by_service
 *             keys upload-pack, receive-pack, upload-archive. A duration, from the start of a git
 *             to its end, is {"count":2,"sum_ms":450,"le_ms":{"10":0,...,"250":1,...}}: how many
 *             took so many milliseconds or less, up to half an hour; the longest are only in count
 */
uint32_t plue_ssh_counters(char *json, uint32_t capacity);

#ifdef __cplusplus
}
#endif

#endif
