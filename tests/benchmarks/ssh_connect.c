/*
 * Load for `./dev bench ssh`: connects, logs in, runs git-upload-pack, reads its answer to the end
 * and closes, over and over on parallel threads. Prints connections a second.
 *
 *   ssh_connect PORT USER PRIVATE_KEY COMMAND THREADS CONNECTIONS
 */
#include <libssh/libssh.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static atomic_int left, failed;
static int port;
static const char *user, *command;
static ssh_key key;

static int connect_once(void) {
    static const int strict = 0, off = 0;
    int result = -1;
    char output[65536];
    ssh_session session = ssh_new();
    ssh_channel channel = NULL;
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, user);
    ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &off);
    ssh_options_set(session, SSH_OPTIONS_STRICTHOSTKEYCHECK, &strict);
    ssh_options_set(session, SSH_OPTIONS_KEY_EXCHANGE, "curve25519-sha256");
    ssh_options_set(session, SSH_OPTIONS_NODELAY, &(int){1});
    if (ssh_connect(session) != SSH_OK) goto done;
    if (ssh_userauth_publickey(session, NULL, key) != SSH_AUTH_SUCCESS) goto done;
    channel = ssh_channel_new(session);
    if (ssh_channel_open_session(channel) != SSH_OK) goto done;
    if (ssh_channel_request_exec(channel, command) != SSH_OK) goto done;
    ssh_channel_write(channel, "0000", 4);
    ssh_channel_send_eof(channel);
    int total = 0, got;
    while ((got = ssh_channel_read(channel, output, sizeof output, 0)) > 0) total += got;
    if (total > 0 && ssh_channel_get_exit_status(channel) == 0) result = 0;
done:
    if (result != 0) fprintf(stderr, "ssh_connect: %s\n", ssh_get_error(session));
    if (channel != NULL) ssh_channel_free(channel);
    ssh_disconnect(session);
    ssh_free(session);
    return result;
}

static void *run(void *unused) {
    (void)unused;
    while (atomic_fetch_sub(&left, 1) > 0) {
        if (connect_once() != 0) atomic_fetch_add(&failed, 1);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    port = atoi(argv[1]);
    user = argv[2];
    command = argv[4];
    int threads = atoi(argv[5]), count = atoi(argv[6]);
    ssh_init();
    if (ssh_pki_import_privkey_file(argv[3], NULL, NULL, NULL, &key) != SSH_OK) return 2;
    atomic_store(&left, count);
    pthread_t *ids = calloc(threads, sizeof *ids);
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, run, NULL);
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (ended.tv_sec - begun.tv_sec) + (ended.tv_nsec - begun.tv_nsec) / 1e9;
    printf("%.1f %d\n", count / seconds, atomic_load(&failed));
    free(ids);
    ssh_key_free(key);
    return 0;
}
