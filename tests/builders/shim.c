/* Let the nth call that changes a file in a folder fail, or kill the process there.

   Loaded with LD_PRELOAD, it sees the calls of Python and of C++ libraries alike. It does nothing
   before `shim_arm` is called. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[4096], log_file[4096];
static long wanted, count;
static int error_number;

/* nth: from 1 on; 0 only counts. error: of that call; 0 kills the process with SIGKILL.
   log: a file to which the name of each call is appended; "" for none. */
void shim_arm(const char *in_folder, long nth, int error, const char *log) {
  snprintf(folder, sizeof folder, "%s/", in_folder);
  snprintf(log_file, sizeof log_file, "%s", log);
  wanted = nth;
  error_number = error;
  count = 0;
}

static int below(const char *path) { return strncmp(path, folder, strlen(folder)) == 0; }

static int is_inside(int at, const char *path) {
  char link[64], base[4096];
  if (!folder[0]) return 0;
  if (path && path[0] == '/') return below(path);
  if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
  else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
  ssize_t length = readlink(link, base, sizeof base - 2);
  if (length < 0) return 0;
  base[length] = '/';
  base[length + 1] = 0;
  return below(base);
}

static int fails(const char *name) {
  int saved = errno;
  count++;
  if (log_file[0]) {
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    ssize_t (*real_write)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int file = real_open(log_file, O_WRONLY | O_CREAT | O_APPEND, 0644);
    char line[80];
    real_write(file, line, snprintf(line, sizeof line, "%s\n", name));
    close(file);
  }
  errno = saved;
  if (count != wanted) return 0;
  if (!error_number) kill(getpid(), SIGKILL);
  errno = error_number;
  return 1;
}

#define CALL(result, name, parameters, arguments, inside)        \
  result name parameters {                                       \
    static result(*real) parameters;                             \
    if (!real) real = dlsym(RTLD_NEXT, #name);                   \
    if ((inside) && fails(#name)) return -1;                     \
    return real arguments;                                       \
  }

CALL(ssize_t, write, (int f, const void *b, size_t n), (f, b, n), is_inside(f, NULL))
CALL(ssize_t, pwrite, (int f, const void *b, size_t n, off_t o), (f, b, n, o), is_inside(f, NULL))
CALL(ssize_t, pwrite64, (int f, const void *b, size_t n, off64_t o), (f, b, n, o), is_inside(f, NULL))
CALL(ssize_t, sendfile, (int o, int i, off_t *p, size_t n), (o, i, p, n), is_inside(o, NULL))
CALL(ssize_t, sendfile64, (int o, int i, off64_t *p, size_t n), (o, i, p, n), is_inside(o, NULL))
CALL(ssize_t, copy_file_range, (int i, off64_t *p, int o, off64_t *q, size_t n, unsigned g),
     (i, p, o, q, n, g), is_inside(o, NULL))
CALL(int, fsync, (int f), (f), is_inside(f, NULL))
CALL(int, ftruncate, (int f, off_t n), (f, n), is_inside(f, NULL))
CALL(int, ftruncate64, (int f, off64_t n), (f, n), is_inside(f, NULL))
CALL(int, mkdir, (const char *p, mode_t m), (p, m), is_inside(AT_FDCWD, p))
CALL(int, mkdirat, (int d, const char *p, mode_t m), (d, p, m), is_inside(d, p))
CALL(int, chmod, (const char *p, mode_t m), (p, m), is_inside(AT_FDCWD, p))
CALL(int, unlink, (const char *p), (p), is_inside(AT_FDCWD, p))
CALL(int, rmdir, (const char *p), (p), is_inside(AT_FDCWD, p))
CALL(int, unlinkat, (int d, const char *p, int g), (d, p, g), is_inside(d, p))
CALL(int, rename, (const char *p, const char *q), (p, q), is_inside(AT_FDCWD, q))
CALL(int, renameat, (int d, const char *p, int e, const char *q), (d, p, e, q), is_inside(e, q))
CALL(int, renameat2, (int d, const char *p, int e, const char *q, unsigned g), (d, p, e, q, g),
     is_inside(e, q))
CALL(int, link, (const char *p, const char *q), (p, q), is_inside(AT_FDCWD, q))
CALL(int, linkat, (int d, const char *p, int e, const char *q, int g), (d, p, e, q, g),
     is_inside(e, q))

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))
#define OPEN(name)                                                                   \
  int name(const char *path, int flags, ...) {                                       \
    static int (*real)(const char *, int, ...);                                      \
    if (!real) real = dlsym(RTLD_NEXT, #name);                                       \
    va_list rest;                                                                    \
    va_start(rest, flags);                                                           \
    mode_t mode = va_arg(rest, int);                                                 \
    va_end(rest);                                                                    \
    if (WRITES(flags) && is_inside(AT_FDCWD, path) && fails(#name)) return -1;       \
    return real(path, flags, mode);                                                  \
  }
OPEN(open)
OPEN(open64)
