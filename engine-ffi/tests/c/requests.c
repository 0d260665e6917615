/* The fingerprint of an HTTP request is that of its documented parts. */
#include "check.h"

#define S(text) oncekey_str(text)

static void same(oncekey_engine engine, const char *name, const oncekey_request *request,
                 const oncekey_part *parts, size_t count) {
  oncekey_fingerprint one, two;
  oncekey_answer answer;
  OK(oncekey_fingerprint_from_request(request, &one, NULL));
  OK(oncekey_fingerprint_from_parts(parts, count, &two, NULL));
  OK(oncekey_begin(engine, named(name), one, 0, &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_CLAIMED);
  OK(oncekey_claim_complete(answer.claim, S("r"), NULL, NULL));
  OK(oncekey_begin(engine, named(name), two, 0, &answer, NULL));
  CHECK(answer.outcome == ONCEKEY_REPLAY);
  OK(oncekey_buffer_free(&answer.data));
  OK(oncekey_fingerprint_free(one));
  OK(oncekey_fingerprint_free(two));
}

void test(void) {
  oncekey_engine engine = open_here();
  oncekey_header headers[] = {{S("X-Api-Key"), S("k")},
                              {S("content-type"), S("a")},
                              {S("accept"), S("x")},
                              {S("Content-Type"), S("b")}};
  oncekey_request request = {S("POST"), S("/orders?b=1&a=%20"), S("{}"), headers, 4, NULL, 0};
  oncekey_part parts[] = {{S("method"), S("POST")},
                          {S("target"), S("/orders?b=1&a=%20")},
                          {S("header content-type"), bytes("a\0b", 3)},
                          {S("header x-api-key"), S("k")},
                          {S("body"), S("{}")}};
  same(engine, "default", &request, parts, 5);

  oncekey_slice names[] = {S("X-B"), S("accept"), S("x-b")};
  request.fingerprinted = names;
  request.fingerprinted_count = 3;
  oncekey_part chosen[] = {parts[0], parts[1], {S("header accept"), S("x")}, parts[4]};
  same(engine, "chosen", &request, chosen, 4);

  request.fingerprinted_count = 0;
  oncekey_part none[] = {parts[0], parts[1], parts[4]};
  same(engine, "none", &request, none, 3);

  oncekey_slice many[62];
  char text[62][8];
  for (int i = 0; i < 62; i++) {
    snprintf(text[i], sizeof text[i], "x-%d", i);
    many[i] = S(text[i]);
  }
  request.fingerprinted = many;
  request.fingerprinted_count = 62;
  oncekey_fingerprint fingerprint;
  IS(ONCEKEY_INVALID_INPUT, oncekey_fingerprint_from_request(&request, &fingerprint, NULL));
  end(engine);
}
