/* Operators ask a program that holds a store: one call offers the control socket, and the engine's end ends it. */
#include "check.h"
#include "asking.h"
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>

static void free_of_errors(oncekey_error error) {
  CHECK(strlen(oncekey_error_message(error)) > 0);
  OK(oncekey_error_free(error));
}

/* The place at which the owner answers, as the store says it. */
static void named_by_the_store(char path[4097]) {
  char note[4097], expected[64];
  noted(place, note);
  int len = snprintf(expected, sizeof expected, "pid %ld\ncontrol unix:", (long)getpid());
  CHECK(strncmp(note, expected, (size_t)len) == 0);
  snprintf(path, 4097, "%s", note + len);
  char *end = strchr(path, '\n');
  CHECK(end != NULL && end[1] == 0);
  *end = 0;
}

static void nothing_is_noted(void) {
  char note[4097];
  noted(place, note);
  CHECK(note[0] == 0);
}

static int is_there(const char *path) {
  struct stat status;
  return lstat(path, &status) == 0;
}

/* Sockets of this process, and the descriptors that wait for them. */
static int count_sockets(void) {
  DIR *directory = opendir("/proc/self/fd");
  if (directory == NULL) return 0;
  int count = 0;
  struct dirent *entry;
  while ((entry = readdir(directory)) != NULL) {
    char target[256];
    ssize_t len = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);
    if (len < 0) continue;
    target[len] = 0;
    count += strncmp(target, "socket:", 7) == 0 || strncmp(target, "anon_inode:[event", 17) == 0;
  }
  closedir(directory);
  return count;
}

/* Every other thread leaves the signals of the process to those of the program. A thread that has just been started
 * holds all signals back, so each is asked for something first. */
static void threads_of_the_library_take_no_signals(oncekey_engine engine, const char *path) {
  OK(oncekey_engine_fold(engine, NULL));
  OK(oncekey_claim_abort(claim_of(engine, "asked"), NULL));
  says(path, "GET /api/v1/orphans", 200, "total");
  DIR *directory = opendir("/proc/self/task");
  if (directory == NULL) return;
  int others = 0;
  struct dirent *entry;
  while ((entry = readdir(directory)) != NULL) {
    if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid()) continue;
    char path[320], line[256];
    unsigned long long blocked = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
    FILE *status = fopen(path, "r");
    if (status == NULL) continue;
    while (fgets(line, sizeof line, status) != NULL) sscanf(line, "SigBlk: %llx", &blocked);
    fclose(status);
    others++;
    for (size_t i = 0; i < 5; i++) {
      const int signals[] = {SIGINT, SIGTERM, SIGCHLD, SIGALRM, SIGUSR1};
      CHECK(blocked >> (signals[i] - 1) & 1);
    }
  }
  closedir(directory);
  CHECK(others >= 3);
}

static void it_answers_until_the_engine_is_closed(void) {
  /* Built together with programs that catch signals, the runtime keeps a pair of sockets for the process from the
   * first one on. */
  oncekey_engine engine = open_here();
  OK(oncekey_engine_control_socket(engine, NULL, NULL));
  end(engine);
  int before = count_sockets();
  engine = open_here();
  nothing_is_noted();
  oncekey_claim held = claim_of(engine, "held");
  OK(oncekey_claim_free(claim_of(engine, "lost")));
  OK(oncekey_claim_complete(claim_of(engine, "done"), oncekey_str("201 created"), NULL, NULL));

  sigset_t mask, after;
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
  OK(oncekey_engine_control_socket(engine, NULL, NULL));
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
  for (int signal = 1; signal < 32; signal++)
    CHECK(sigismember(&mask, signal) == sigismember(&after, signal));
  char path[4097];
  named_by_the_store(path);
  threads_of_the_library_take_no_signals(engine, path);
  struct stat status;
  CHECK(stat(path, &status) == 0 && S_ISSOCK(status.st_mode));
  CHECK((status.st_mode & 0777) == 0600 && status.st_uid == geteuid());

  says(path, "GET /api/v1/info", 200, "\"role\":\"operator\"");
  says(path, "GET /api/v1/stats", 200, "\"inFlight\":1");
  says(path, "GET /api/v1/stats", 200, "\"layer\":null");
  says(path, "GET /api/v1/orphans", 200, "\"total\":1");
  says(path, "GET /api/v1/keys?scope=scope&key=held", 200, "\"state\":\"inFlight\"");
  says(path, "GET /api/v1/keys?scope=scope&key=lost", 200, "\"state\":\"orphaned\"");
  says(path, "GET /api/v1/keys/response?scope=scope&key=done", 403, "show_responses");
  says(path, "GET /api/v1/backups", 404, "not set up");
  says(path, "POST /api/v1/fold", 200, "\"folded\":true");

  /* The engine that it answers for goes on, and its threads take no signals after a reopen either. */
  says(path, "POST /api/v1/reopen", 200, "\"reopened\":true");
  threads_of_the_library_take_no_signals(engine, path);
  named_by_the_store(path);
  OK(oncekey_engine_reopen(engine, NULL));
  threads_of_the_library_take_no_signals(engine, path);
  OK(oncekey_claim_complete(held, oncekey_str("late"), NULL, NULL));
  says(path, "GET /api/v1/keys?scope=scope&key=held", 200, "\"state\":\"completed\"");

  oncekey_error error;
  IS(ONCEKEY_INVALID_INPUT, oncekey_engine_control_socket(engine, NULL, &error));
  CHECK(strstr(oncekey_error_message(error), "already") != NULL);
  free_of_errors(error);

  /* Silent connections do not delay the end. */
  int silent = connected(path);
  CHECK(silent >= 0);
  OK(oncekey_engine_close(engine, NULL, NULL));
  CHECK(!is_there(path));
  nothing_is_noted();
  char byte;
  CHECK(read(silent, &byte, 1) <= 0);
  close(silent);
  CHECK(count_sockets() == before);
  IS(ONCEKEY_CLOSED, oncekey_engine_control_socket(engine, NULL, &error));
  free_of_errors(error);
  OK(oncekey_engine_free(engine));
  IS(ONCEKEY_INVALID_HANDLE, oncekey_engine_control_socket(engine, NULL, NULL));
  is_sound(place);
}

/* A short path: that of the test's directory may be longer than a socket's may be. */
static void at(char path[64], const char *name) {
  snprintf(path, 64, "/tmp/oncekey-c-%ld-%s", (long)getpid(), name);
}

static void options_say_where_and_what(void) {
  char path[64], backups[64], audit[64];
  at(path, "sock");
  at(backups, "backups");
  at(audit, "audit");
  oncekey_control_options options = {0};
  options.size = sizeof options;
  options.flags = ONCEKEY_CONTROL_SHOW_RESPONSES;
  options.path = oncekey_str(path);
  options.backups = oncekey_str(backups);
  options.audit_log = oncekey_str(audit);
  oncekey_engine engine = open_here();
  OK(oncekey_claim_complete(claim_of(engine, "shown"), oncekey_str("as it is"), NULL, NULL));
  OK(oncekey_engine_control_socket(engine, &options, NULL));
  says(path, "GET /api/v1/keys/response?scope=scope&key=shown", 200, "as it is");
  says(path, "GET /api/v1/backups", 200, "\"backups\":[]");
  says(path, "POST /api/v1/sweep", 200, "swept");
  FILE *lines = fopen(audit, "r");
  char line[1024];
  CHECK(lines != NULL && fgets(line, sizeof line, lines) != NULL && strstr(line, "sweep") != NULL);
  CHECK(fclose(lines) == 0 && remove(audit) == 0);
  /* Only the handle is freed. */
  OK(oncekey_engine_free(engine));
  CHECK(!is_there(path));

  options.flags = ONCEKEY_CONTROL_READ_ONLY;
  options.backups = options.audit_log = bytes(NULL, 0);
  engine = open_here();
  OK(oncekey_engine_control_socket(engine, &options, NULL));
  says(path, "POST /api/v1/sweep", 403, "read");
  says(path, "GET /api/v1/info", 200, "\"readOnly\":true");
  end(engine);
}

static void mistakes_are_refused_and_leave_none(void) {
  char path[64], longest[200];
  at(path, "mistake");
  memset(longest, 'n', sizeof longest);
  oncekey_control_options good = {0}, options;
  good.size = sizeof good;
  good.path = oncekey_str(path);
  oncekey_engine engine = open_here();
  oncekey_error error;
  IS(ONCEKEY_INVALID_HANDLE, oncekey_engine_control_socket((oncekey_engine){0}, &good, NULL));
  options = good;
  options.size = 4;
  IS(ONCEKEY_INVALID_INPUT, oncekey_engine_control_socket(engine, &options, NULL));
  options = good;
  options.flags = 1;
  IS(ONCEKEY_INVALID_INPUT, oncekey_engine_control_socket(engine, &options, NULL));
  options = good;
  options.backups = bytes(NULL, 3);
  IS(ONCEKEY_INVALID_INPUT, oncekey_engine_control_socket(engine, &options, NULL));
  options = good;
  options.path = bytes(longest, sizeof longest);
  IS(ONCEKEY_INVALID_INPUT, oncekey_engine_control_socket(engine, &options, &error));
  free_of_errors(error);
  options.path = oncekey_str("/nowhere/at/all");
  IS(ONCEKEY_IO, oncekey_engine_control_socket(engine, &options, &error));
  CHECK(strstr(oncekey_error_message(error), "/nowhere/at/all") != NULL);
  free_of_errors(error);
  if (is_shared()) {
    IS(ONCEKEY_INVALID_INPUT, oncekey_engine_control_socket(engine, NULL, &error));
    CHECK(strstr(oncekey_error_message(error), "path") != NULL);
    free_of_errors(error);
  } else {
    nothing_is_noted();
  }
  OK(oncekey_engine_control_socket(engine, &good, NULL));
  says(path, "GET /api/v1/info", 200, "\"pid\"");
  end(engine);
  CHECK(!is_there(path));
}

/* The output of a process that has closed its standard streams reaches no socket. */
static void a_process_without_standard_streams_prints_into_no_socket(void) {
  char path[64];
  at(path, "streams");
  oncekey_control_options options = {0};
  options.size = sizeof options;
  options.path = oncekey_str(path);
  int kept = dup(2);
  CHECK(kept > 2);
  for (int fd = 0; fd <= 2; fd++) close(fd);
  oncekey_engine engine = open_here();
  OK(oncekey_engine_control_socket(engine, &options, NULL));
  for (int fd = 0; fd <= 2; fd++) {
    struct stat opened;
    if (fstat(fd, &opened) != 0 || !S_ISCHR(opened.st_mode) || write(fd, "x", 1) != -1) {
      dup2(kept, 2);
      CHECK(!"a standard stream is no /dev/null");
    }
  }
  says(path, "GET /api/v1/info", 200, "\"pid\"");
  end(engine);
  for (int fd = 0; fd <= 2; fd++) CHECK(dup2(kept, fd) == fd);
  close(kept);
}

void test(void) {
  if (!is_shared()) it_answers_until_the_engine_is_closed();
  options_say_where_and_what();
  mistakes_are_refused_and_leave_none();
  a_process_without_standard_streams_prints_into_no_socket();
}
