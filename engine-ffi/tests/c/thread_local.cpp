/* A connection of C++ that completes its claim when its thread ends, before and after the library's own
 * thread-local storage is gone. */
#include "check.h"
#include <thread>

static oncekey_engine engine;

struct Connection {
  const char *name;
  oncekey_claim claim{0};
  explicit Connection(const char *name) : name(name) {}
  ~Connection() {
    if (claim.id == 0) claim = claim_of(engine, name);
    OK(oncekey_claim_checkpoint(claim, oncekey_str("half"), nullptr));
    OK(oncekey_claim_complete(claim, oncekey_str("r"), nullptr, nullptr));
  }
};

void test(void) {
  engine = open_here();
  std::thread([] {
    // Made before the first call of the thread: destroyed after what the library made for it.
    thread_local Connection first("first");
    first.claim = claim_of(engine, "first");
    thread_local Connection second("second");
    second.claim = claim_of(engine, "second");
  }).join();
  std::thread([] {
    thread_local Connection third("third");
    (void)third.name;
  }).join();
  const char *names[] = {"first", "second", "third"};
  for (const char *name : names) {
    oncekey_answer answer = begin_as(engine, name, "b", ONCEKEY_REPLAY);
    OK(oncekey_buffer_free(&answer.data));
  }
  end(engine);
}
