/* A program in C that holds a store, has operators ask it, and ends when its standard input does. */
#include <oncekey.h>
#include <stdio.h>

static int failed(const char *what, int32_t status) {
  if (status == ONCEKEY_OK) return 0;
  fprintf(stderr, "%s: %s\n", what, oncekey_status_name(status));
  return 1;
}

static int begin(oncekey_engine engine, const char *name, oncekey_claim *claim) {
  oncekey_key key = {oncekey_str("c"), oncekey_str(name)};
  oncekey_fingerprint fingerprint;
  oncekey_answer answer;
  int32_t status = oncekey_fingerprint_from_parts(NULL, 0, &fingerprint, NULL);
  if (status == ONCEKEY_OK) status = oncekey_begin(engine, key, fingerprint, 0, &answer, NULL);
  oncekey_fingerprint_free(fingerprint);
  if (failed("begin", status)) return 1;
  *claim = answer.claim;
  return answer.outcome != ONCEKEY_CLAIMED;
}

int main(int argc, char **argv) {
  oncekey_engine engine;
  oncekey_claim claim;
  if (argc != 2) return 2;
  if (failed("open", oncekey_engine_open(oncekey_str(argv[1]), NULL, &engine, NULL))) return 1;
  if (failed("control", oncekey_engine_control_socket(engine, NULL, NULL))) return 1;
  if (begin(engine, "done", &claim)) return 1;
  if (failed("complete", oncekey_claim_complete(claim, oncekey_str("raw"), NULL, NULL))) return 1;
  if (begin(engine, "lost", &claim)) return 1;
  oncekey_claim_free(claim);
  /* The end of a freed claim is on its way. The next begin comes behind it. */
  if (begin(engine, "held", &claim)) return 1;
  puts("open");
  fflush(stdout);
  while (getchar() != EOF) {
  }
  if (failed("close", oncekey_engine_close(engine, NULL, NULL))) return 1;
  oncekey_claim_free(claim);
  oncekey_engine_free(engine);
  return 0;
}
