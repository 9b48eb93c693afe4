/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * What the plugin calls in the place of the C library's, in plugin.c. It is
 * included before everything else; in parentheses the names are the C library's.
 */
#ifndef FAKE_H
#define FAKE_H

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void *fake_dlopen(const char *name, int flags);
void *fake_dlvsym(void *lib, const char *name, const char *version);
int fake_fsync(int fd);
int fake_kill(pid_t pid, int sig);
ssize_t fake_readlink(const char *path, char *target, size_t len);
int fake_stat(const char *path, struct stat *st);
void *fake_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int fake_munmap(void *addr, size_t len);

#define dlopen(...) fake_dlopen(__VA_ARGS__)
#define dlvsym(...) fake_dlvsym(__VA_ARGS__)
#define fsync(...) fake_fsync(__VA_ARGS__)
#define kill(...) fake_kill(__VA_ARGS__)
#define readlink(...) fake_readlink(__VA_ARGS__)
#define stat(...) fake_stat(__VA_ARGS__)
#define mmap(...) fake_mmap(__VA_ARGS__)
#define munmap(...) fake_munmap(__VA_ARGS__)

#endif
