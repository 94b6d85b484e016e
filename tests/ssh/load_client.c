/*
 * Many SSH clients in one fast process, for tests that need thousands of connections.
 *
 *   load_client guess PORT COUNT THREADS KEY...   tries to log in, COUNT times over all
 *   load_client fetch PORT COUNT THREADS KEY      runs git-upload-pack, reads its answer to the end
 *   load_client drop  PORT COUNT THREADS KEY      the same, and hangs up in the middle of it
 *
 * Prints "done failed let_in": tries or connections, those that went wrong, and logins.
 */
#include <libssh/libssh.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { KEYS_MAX = 8, TRIES_MAX = 100 };

static atomic_int left, done, failed, let_in;
static const char *mode;
static int port, key_count;
static ssh_key keys[KEYS_MAX];

static ssh_session connect_once(void) {
    static const int strict = 0, off = 0, on = 1;
    ssh_session session = ssh_new();
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, "git");
    ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &off);
    ssh_options_set(session, SSH_OPTIONS_STRICTHOSTKEYCHECK, &strict);
    ssh_options_set(session, SSH_OPTIONS_KEY_EXCHANGE, "curve25519-sha256");
    ssh_options_set(session, SSH_OPTIONS_NODELAY, &on);
    if (ssh_connect(session) == SSH_OK) return session;
    fprintf(stderr, "load_client: %s\n", ssh_get_error(session));
    ssh_free(session);
    return NULL;
}

/* Not blocking: libssh would wait for ever once the server has hung up. */
static int try_key(ssh_session session, ssh_key key) {
    int answer;
    ssh_set_blocking(session, 0);
    while ((answer = ssh_userauth_publickey(session, NULL, key)) == SSH_AUTH_AGAIN) {
        struct pollfd answered = {.fd = ssh_get_fd(session), .events = POLLIN};
        if (!ssh_is_connected(session) || poll(&answered, 1, 20000) != 1) return SSH_AUTH_ERROR;
    }
    ssh_set_blocking(session, 1);
    return answer;
}

/* As many tries as the server allows on one connection, with one key after the other. */
static void guess(ssh_session session, int first) {
    if (ssh_userauth_none(session, NULL) != SSH_AUTH_DENIED) atomic_fetch_add(&failed, 1);
    for (int i = 0; i < TRIES_MAX; i++) {
        int answer = try_key(session, keys[(first + i) % key_count]);
        atomic_fetch_add(&done, 1);
        if (answer == SSH_AUTH_SUCCESS) atomic_fetch_add(&let_in, 1);
        /* libssh 0.12 says "denied" when it is disconnected meanwhile. */
        if (answer != SSH_AUTH_DENIED || !ssh_is_connected(session)) return;
        if (atomic_fetch_sub(&left, 1) <= 0) return;
    }
    atomic_fetch_add(&failed, 1); /* the server never cut it off */
}

static int fetch(ssh_session session) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    char output[65536];
    int total = 0, got, result = -1;
    if (ssh_userauth_publickey(session, NULL, keys[0]) != SSH_AUTH_SUCCESS) return -1;
    atomic_fetch_add(&let_in, 1);
    ssh_channel channel = ssh_channel_new(session);
    if (ssh_channel_open_session(channel) != SSH_OK) goto end;
    if (ssh_channel_request_exec(channel, "git-upload-pack 'alice/project'") != SSH_OK) goto end;
    if (strcmp(mode, "drop") == 0) {
        setsockopt(ssh_get_fd(session), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        shutdown(ssh_get_fd(session), SHUT_RDWR);
        result = 0;
        goto end;
    }
    ssh_channel_write(channel, "0000", 4);
    ssh_channel_send_eof(channel);
    while ((got = ssh_channel_read(channel, output, sizeof output, 0)) > 0) total += got;
    if (total > 0 && ssh_channel_get_exit_status(channel) == 0) result = 0;
end:
    ssh_channel_free(channel);
    return result;
}

static void *run(void *number) {
    for (int first = (int)(size_t)number; atomic_fetch_sub(&left, 1) > 0; first++) {
        ssh_session session = connect_once();
        if (session == NULL) {
            atomic_fetch_add(&failed, 1);
            continue;
        }
        if (strcmp(mode, "guess") == 0) {
            guess(session, first);
        } else {
            atomic_fetch_add(&done, 1);
            if (fetch(session) != 0) {
                fprintf(stderr, "load_client: %s\n", ssh_get_error(session));
                atomic_fetch_add(&failed, 1);
            }
        }
        ssh_disconnect(session);
        ssh_free(session);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 6 || argc > 5 + KEYS_MAX) return 2;
    mode = argv[1];
    port = atoi(argv[2]);
    atomic_store(&left, atoi(argv[3]));
    int threads = atoi(argv[4]);
    if (ssh_init() != SSH_OK) return 2;
    for (key_count = 0; key_count < argc - 5; key_count++) {
        const char *path = argv[5 + key_count];
        if (ssh_pki_import_privkey_file(path, NULL, NULL, NULL, &keys[key_count]) != SSH_OK) {
            fprintf(stderr, "load_client: no key in %s\n", path);
            return 2;
        }
    }
    pthread_t *ids = calloc(threads, sizeof *ids);
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, run, (void *)(size_t)i);
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    printf("%d %d %d\n", done, failed, let_in);
    free(ids);
    for (int i = 0; i < key_count; i++) ssh_key_free(keys[i]);
    return 0;
}
