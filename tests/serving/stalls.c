/* What stalls from outside: preloaded, the resolver gives no answer for `states.stall` while the file STALL_NAMES is there (a file
   `STALL_NAMES asked` tells that it was asked), and a read of states.sqlite and every flush to disk wait 60 ms while STALL_DISK is. `states.stall` is this machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int stalled(const char *by) {
    const char *path = getenv(by);
    return path && !access(path, F_OK);
}

int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints, struct addrinfo **restrict found) {
    if (node && !strcmp(node, "states.stall")) {
        if (stalled("STALL_NAMES")) {
            char asked[4096];
            snprintf(asked, sizeof asked, "%s asked", getenv("STALL_NAMES"));
            close(creat(asked, 0600));
        }
        while (stalled("STALL_NAMES")) usleep(100000);
        node = "127.0.0.1";
    }
    return REAL(getaddrinfo)(node, service, hints, found);
}

static int of_states(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return strstr(path, "states.sqlite") != NULL;
}

ssize_t pread64(int file, void *into, size_t size, off64_t at) {
    if (stalled("STALL_DISK") && of_states(file)) usleep(60000);
    return REAL(pread64)(file, into, size, at);
}

ssize_t pread(int file, void *into, size_t size, off_t at) { return pread64(file, into, size, at); }

int fdatasync(int file) {
    if (stalled("STALL_DISK")) usleep(60000);
    return REAL(fdatasync)(file);
}

int fsync(int file) {
    if (stalled("STALL_DISK")) usleep(60000);
    return REAL(fsync)(file);
}
