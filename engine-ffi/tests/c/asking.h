/* Asking a control socket, as the program oncekey does. */
#ifndef ASKING_H
#define ASKING_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* What the owner of the store notes, a text. */
static inline void noted(const char *store, char note[4097]) {
  char path[4200];
  snprintf(path, sizeof path, "%s/LOCK", store);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  note[fread(note, 1, 4096, file)] = 0;
  CHECK(fclose(file) == 0);
}

/* A connection to the socket; -1 where there is none. */
static inline int connected(const char *path) {
  struct sockaddr_un address = {0};
  address.sun_family = AF_UNIX;
  CHECK(strlen(path) < sizeof address.sun_path);
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

/* The whole answer to a request without a body. */
static inline void ask(const char *path, const char *request, char answer[65536]) {
  int fd = connected(path);
  CHECK(fd >= 0);
  char text[1024];
  int len = snprintf(text, sizeof text,
                     "%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                     "Content-Type: application/json\r\nConnection: close\r\n\r\n",
                     request);
  CHECK(write(fd, text, (size_t)len) == len);
  size_t at = 0;
  ssize_t got;
  while ((got = read(fd, answer + at, 65535 - at)) > 0) at += (size_t)got;
  CHECK(got == 0);
  answer[at] = 0;
  close(fd);
}

/* Asks, and expects a status and a word of the answer. */
static inline void says(const char *path, const char *request, int status, const char *word) {
  static char answer[65536];
  char expected[32];
  ask(path, request, answer);
  snprintf(expected, sizeof expected, "HTTP/1.1 %d ", status);
  if (strncmp(answer, expected, strlen(expected)) != 0 || strstr(answer, word) == NULL) {
    fprintf(stderr, "%s: not %d with %s: %s\n", request, status, word, answer);
    abort();
  }
}

#endif
