/* A disk that fails when told to: preloaded into the broker by faults.py.
 *
 * FAULTS_CONTROL names a file. While it exists, its words say what goes wrong with the files below
 * the directory FAULTS_BELOW, and with nothing else:
 *
 *   full    whatever would write or make a file longer fails with ENOSPC
 *   low     statvfs says that nothing is free
 *   write   whatever would write fails with EIO
 *   fsync   fsync and fdatasync fail with EIO
 *
 * While it does not exist, a call costs one access() more.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The libc function that a function here stands before. */
#define REAL(name, ...)                                                                            \
    static __typeof__(name) *real;                                                                 \
    if (!real)                                                                                     \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);                                        \
    return real(__VA_ARGS__)

static int told(const char *word)
{
    const char *control = getenv("FAULTS_CONTROL");
    if (!control || access(control, F_OK) != 0)
        return 0;
    char words[64];
    int file = open(control, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t length = read(file, words, sizeof words - 1);
    close(file);
    words[length > 0 ? length : 0] = 0;
    return strstr(words, word) != NULL;
}

static int is_below(const char *path)
{
    const char *below = getenv("FAULTS_BELOW");
    size_t length = below ? strlen(below) : 0;
    return length && strncmp(path, below, length) == 0 &&
           (path[length] == '/' || path[length] == 0);
}

static int is_ours(int fd)
{
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0; /* of a deleted file: with " (deleted)" behind it */
    return is_below(path);
}

/* The error that this call must fail with, or 0. errno stays as it was. */
static int fault(int fd, int writes)
{
    int before = errno, error = 0;
    if (writes && told("full"))
        error = ENOSPC;
    else if (told(writes ? "write" : "fsync"))
        error = EIO;
    if (error && !is_ours(fd))
        error = 0;
    errno = before;
    return error;
}

#define FAIL_IF_TOLD(fd, writes)                                                                   \
    int error = fault(fd, writes);                                                                 \
    if (error) {                                                                                   \
        errno = error;                                                                             \
        return -1;                                                                                 \
    }

ssize_t write(int fd, const void *data, size_t length)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(write, fd, data, length);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(pwrite, fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(pwrite64, fd, data, length, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(writev, fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(pwritev, fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(pwritev64, fd, parts, count, offset);
}

/* A full disk still lets a file be made shorter. */
static int grows(int fd, off64_t length)
{
    struct stat64 now;
    return fstat64(fd, &now) == 0 && length > now.st_size;
}

int ftruncate(int fd, off_t length)
{
    if (grows(fd, length)) {
        FAIL_IF_TOLD(fd, 1)
    }
    REAL(ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    if (grows(fd, length)) {
        FAIL_IF_TOLD(fd, 1)
    }
    REAL(ftruncate64, fd, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(fallocate, fd, mode, offset, length);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    FAIL_IF_TOLD(fd, 1)
    REAL(fallocate64, fd, mode, offset, length);
}

/* These return the error in place of setting errno. */
int posix_fallocate(int fd, off_t offset, off_t length)
{
    int error = fault(fd, 1);
    if (error)
        return error;
    REAL(posix_fallocate, fd, offset, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    int error = fault(fd, 1);
    if (error)
        return error;
    REAL(posix_fallocate64, fd, offset, length);
}

int fsync(int fd)
{
    FAIL_IF_TOLD(fd, 0)
    REAL(fsync, fd);
}

int fdatasync(int fd)
{
    FAIL_IF_TOLD(fd, 0)
    REAL(fdatasync, fd);
}

static int ask_disk(const char *path, struct statvfs *found)
{
    REAL(statvfs, path, found);
}

int statvfs(const char *path, struct statvfs *found)
{
    char whole[PATH_MAX];
    int result = ask_disk(path, found);
    if (result == 0 && told("low") && realpath(path, whole) && is_below(whole))
        found->f_bfree = found->f_bavail = 0;
    return result;
}

int statvfs64(const char *path, struct statvfs64 *found)
{
    return statvfs(path, (struct statvfs *)found); /* the same on a 64-bit system */
}
