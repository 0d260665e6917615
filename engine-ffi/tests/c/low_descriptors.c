/* A process without standard streams prints into no file of the store, and into no queue. */
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

static void log_to_all(void) {
  const char line[] = "WARN the process logs\n";
  for (int i = 0; i < 1000; i++)
    for (int fd = 0; fd <= 2; fd++) CHECK(write(fd, line, sizeof line - 1) == -1);
}

/* While a thread of the engine opens a file, /dev/null may stand in for a moment. */
static void standard_descriptors_are_of_no_store(void) {
  for (int fd = 0; fd <= 2; fd++) {
    struct stat opened;
    CHECK(fstat(fd, &opened) == -1 || S_ISCHR(opened.st_mode));
  }
}

static void standard_descriptors_are_closed(void) {
  for (int fd = 0; fd <= 2; fd++) CHECK(fcntl(fd, F_GETFD) == -1);
}

void test(void) {
  int kept = fcntl(2, F_DUPFD_CLOEXEC, 100);
  CHECK(kept >= 100);
  for (int fd = 0; fd <= 2; fd++) close(fd);
  char backup[4096];
  snprintf(backup, sizeof backup, "%s-backup", place);
  for (int round = 0; round < 2; round++) {
    oncekey_engine engine;
    oncekey_queue queue;
    int32_t queue_fd;
    OK(oncekey_engine_open(oncekey_str(place), NULL, &engine, NULL));
    OK(oncekey_queue_new(engine, 0, &queue, NULL));
    OK(oncekey_queue_fd(queue, &queue_fd, NULL));
    standard_descriptors_are_of_no_store();
    if (round == 0) {
      OK(oncekey_claim_complete(claim_of(engine, "k"), oncekey_str("r"), NULL, NULL));
    } else {
      oncekey_answer answer = begin_as(engine, "k", "b", ONCEKEY_REPLAY);
      OK(oncekey_buffer_free(&answer.data));
    }
    log_to_all();
    OK(oncekey_engine_fold(engine, NULL));
    OK(oncekey_engine_reopen(engine, NULL));
    standard_descriptors_are_of_no_store();
    if (round == 0) OK(oncekey_engine_backup(engine, oncekey_str(backup), NULL));
    standard_descriptors_are_of_no_store();
    log_to_all();
    struct pollfd ready = {queue_fd, POLLIN, 0};
    CHECK(poll(&ready, 1, 0) == 0);
    OK(oncekey_queue_free(queue));
    end(engine);
    standard_descriptors_are_closed();
  }
  for (int fd = 0; fd <= 2; fd++) CHECK(dup2(kept, fd) == fd);
  close(kept);
  OK(oncekey_verify(oncekey_str(place), NULL));
  OK(oncekey_verify(oncekey_str(backup), NULL));
}
