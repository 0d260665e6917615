/* A child gets FORKED from everything and touches nothing; the parent does not notice. */
#include "check.h"
#include "asking.h"
#include <sys/wait.h>
#include <unistd.h>

static void child(oncekey_engine engine, oncekey_claim claim, oncekey_queue queue,
                  oncekey_buffer buffer) {
  const int32_t forked = ONCEKEY_FORKED;
  oncekey_answer answer;
  oncekey_fingerprint fingerprint;
  oncekey_error error;
  oncekey_engine other;
  size_t count;
  oncekey_completion completion;
  memset(&answer, 0xee, sizeof answer);
  IS(forked, oncekey_engine_get(engine, named("k"), &answer, &error));
  CHECK(answer.outcome == 0 && answer.data.ptr == NULL && error.id == 0);
  IS(forked, oncekey_claim_complete(claim, oncekey_str("child"), NULL, NULL));
  IS(forked, oncekey_claim_free(claim));
  IS(forked, oncekey_engine_fold(engine, NULL));
  IS(forked, oncekey_engine_reopen(engine, NULL));
  IS(forked, oncekey_queue_poll(queue, &completion, 1, 0, &count, NULL));
  IS(forked, oncekey_queue_cancel(queue, 0));
  IS(forked, oncekey_queue_free(queue));
  IS(forked, oncekey_buffer_free(&buffer));
  IS(forked, oncekey_fingerprint_from_parts(NULL, 0, &fingerprint, NULL));
  IS(forked, oncekey_engine_open(oncekey_str("elsewhere"), NULL, &other, NULL));
  IS(forked, oncekey_verify(oncekey_str(place), NULL));
  IS(forked, oncekey_engine_control_socket(engine, NULL, NULL));
  IS(forked, oncekey_engine_close(engine, NULL, NULL));
  IS(forked, oncekey_engine_free(engine));
  CHECK(oncekey_abi_version() == ONCEKEY_ABI_VERSION);
  CHECK(strcmp(oncekey_error_message(error), "") == 0);
}

void test(void) {
  /* Before the library is used, a child is an ordinary process. */
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    end(open_here());
    _exit(0);
  }
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && status == 0);

  oncekey_engine engine = open_here();
  oncekey_claim claim = claim_of(engine, "parent");
  OK(oncekey_claim_complete(claim_of(engine, "done"), oncekey_str("r"), NULL, NULL));
  oncekey_answer replay = begin_as(engine, "done", "b", ONCEKEY_REPLAY);
  oncekey_queue queue;
  OK(oncekey_queue_new(engine, 0, &queue, NULL));
  char path[64];
  snprintf(path, sizeof path, "/tmp/oncekey-c-%ld-forks", (long)getpid());
  oncekey_control_options control = {0};
  control.size = sizeof control;
  control.path = oncekey_str(path);
  /* A library may be built without. */
  int32_t offered = oncekey_engine_control_socket(engine, &control, NULL);
  CHECK(offered == ONCEKEY_OK || offered == ONCEKEY_UNSUPPORTED);
  for (int i = 0; i < 20; i++) {
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
      child(engine, claim, queue, replay.data);
      /* With destructors and handlers of the C library for half of them; what the child does not
       * free would look like leaks. */
#ifndef __SANITIZE_ADDRESS__
      if (i % 2) exit(0);
#endif
      _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
  }

  if (offered == ONCEKEY_OK) says(path, "GET /api/v1/info", 200, "\"pid\"");
  /* The parent still holds its directory, so no other process can open it. A database is open to others. */
  oncekey_engine second;
  oncekey_error error;
  const int32_t opened = is_shared() ? ONCEKEY_OK : ONCEKEY_STORE_IN_USE;
  IS(opened, oncekey_engine_open(oncekey_str(place), NULL, &second, &error));
  OK(oncekey_engine_free(second));
  OK(oncekey_error_free(error));
  OK(oncekey_claim_complete(claim, oncekey_str("parent"), NULL, NULL));
  OK(oncekey_buffer_free(&replay.data));
  OK(oncekey_queue_free(queue));
  end(engine);
  is_sound(place);
}
