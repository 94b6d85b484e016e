/* The least that passes a terminal through: a command on a pty, and its bytes both ways. It
 * records nothing; bench_vt.py compares the forwarders with it. Usage: pty_pump COMMAND [ARG ...] */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#ifdef __APPLE__
#include <util.h>
#else
#include <pty.h>
#endif

static struct termios before;
static int is_terminal;

/* Passes on what `from` has; 0 at its end. */
static int pass(int from, int to, char *buffer, size_t size) {
    ssize_t length = read(from, buffer, size);
    if (length <= 0) return length < 0 && errno == EINTR;
    for (ssize_t at = 0; at < length;) {
        ssize_t written = write(to, buffer + at, (size_t)(length - at));
        if (written < 0 && errno != EINTR) return 0;
        if (written > 0) at += written;
    }
    return 1;
}

int main(int argc, char **argv) {
    static char buffer[1 << 16];
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    int master, slave, status;
    if (argc < 2 || openpty(&master, &slave, NULL, NULL, &size) < 0) return 1;
    pid_t child = fork();
    if (child == 0) {
        setsid();
        ioctl(slave, TIOCSCTTY, 0);
        for (int fd = 0; fd < 3; fd++) dup2(slave, fd);
        close(master);
        close(slave);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    close(slave);
    is_terminal = tcgetattr(0, &before) == 0;
    if (is_terminal) {
        struct termios raw = before;
        cfmakeraw(&raw);
        tcsetattr(0, TCSANOW, &raw);
    }
    struct pollfd ready[2] = {{.fd = master, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    while (poll(ready, 2, -1) >= 0 || errno == EINTR) {
        if (ready[1].revents && !pass(0, master, buffer, sizeof buffer)) ready[1].fd = -1;
        if (ready[0].revents && !pass(master, 1, buffer, sizeof buffer)) break;
    }
    waitpid(child, &status, 0);
    if (is_terminal) tcsetattr(0, TCSANOW, &before);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
