/* A process without standard streams prints into no file of the store. */
#include "check.h"
#include <fcntl.h>
#include <unistd.h>

void test(void) {
  int kept = fcntl(2, F_DUPFD_CLOEXEC, 100);
  CHECK(kept >= 100);
  for (int fd = 0; fd < 3; fd++) close(fd);
  oncekey_engine engine = open_here();
  OK(oncekey_claim_complete(claim_of(engine, "k"), oncekey_str("r"), NULL, NULL));
  OK(oncekey_engine_fold(engine, NULL));
  int open_streams = 0;
  for (int fd = 0; fd < 3; fd++) open_streams += fcntl(fd, F_GETFD) >= 0;
  for (int i = 0; i < 1000; i++) {
    dprintf(1, "something that the process prints\n");
    dprintf(2, "something that the process logs\n");
  }
  end(engine);
  engine = open_here();
  oncekey_answer answer = begin_as(engine, "k", "b", ONCEKEY_REPLAY);
  OK(oncekey_buffer_free(&answer.data));
  end(engine);
  for (int fd = 0; fd < 3; fd++) CHECK(dup2(kept, fd) == fd);
  close(kept);
  CHECK(open_streams == 0);
}
