package oncekeyhttp

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/internal/teststore"
)

func TestQuotedKeys(t *testing.T) {
	for sent, expected := range map[string]string{
		`"k"`: "k", `k`: "k", `k"`: `k"`, ` " k " `: " k ", `"say \"\\\""`: `say "\"`,
		`"` + strings.Repeat(`\\`, 255) + `"`: strings.Repeat(`\`, 255),
	} {
		if key, refused := parseKey([]string{sent}, StringOrVerbatim); refused != nil || key != expected {
			t.Errorf("%s: %q %+v", sent, key, refused)
		}
	}
	for _, sent := range []string{`"k`, `"`, `"k";a=1`, `"k"k"`, `"\n"`, `"k\`, "\"\xfc\"", "\"a\tb\"", `""`, `" "`, `"` + strings.Repeat("k", 256) + `"`} {
		if key, refused := parseKey([]string{sent}, StringOrVerbatim); refused == nil || refused.code != invalidCode {
			t.Errorf("%s: %q", sent, key)
		}
	}
	if key, refused := parseKey([]string{`"k"`}, Verbatim); refused != nil || key != `"k"` {
		t.Error(key, refused)
	}
}

func created(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusCreated)
	io.WriteString(w, "created")
}

func TestTheContractOfTheDraft(t *testing.T) {
	contract := IETF()
	contract.Documentation = "https://example.org/keys"
	s := serve(t, Options{Contract: contract, Required: true}, created)
	first := s.post("", "b", "Idempotency-Key", `"k"`)
	same(t, first, s.post("", "b", "Idempotency-Key", `k`))
	s.ran(1)
	problem := s.refused(s.post("", "other", "Idempotency-Key", `"k"`), http.StatusUnprocessableEntity, "idempotency_key_mismatch")
	if problem["type"] != contract.Documentation || problem["title"] != "Unprocessable Entity" {
		t.Fatal(problem)
	}
	missing := s.refused(s.post("", "b"), http.StatusBadRequest, "idempotency_key_missing")
	if !strings.Contains(missing["detail"].(string), "the header idempotency-key.") {
		t.Fatal(missing)
	}
	s.refused(s.post("", "b", "Idempotency-Key", `"k";a=1`), http.StatusBadRequest, "idempotency_key_invalid")
}

func TestTheContractOfStripe(t *testing.T) {
	running, finish := make(chan bool), make(chan bool)
	s := serve(t, Options{Contract: Stripe()}, func(w http.ResponseWriter, r *http.Request) {
		running <- true
		<-finish
		w.Header().Set("Idempotent-Replayed", "of the handler")
		created(w, r)
	})
	done := make(chan answer)
	go func() { done <- s.post("", "b", "Idempotency-Key", "k") }()
	<-running
	inUse := s.post("", "b", "Idempotency-Key", "k")
	if inUse.status != http.StatusConflict || inUse.header.Get("Stripe-Should-Retry") != "true" || inUse.header.Get("Retry-After") != "1" ||
		inUse.body != `{"error":{"type":"idempotency_error","code":"idempotency_key_in_use","message":"A request with this idempotency key is being executed. Try again later."}}` {
		t.Fatalf("%+v", inUse)
	}
	finish <- true
	if first := <-done; fmt.Sprint(first.header["Idempotent-Replayed"]) != "[of the handler]" {
		t.Fatal(first.header)
	}
	again := s.post("", "b", "Idempotency-Key", "k")
	if again.status != http.StatusCreated || fmt.Sprint(again.header["Idempotent-Replayed"]) != "[true]" {
		t.Fatalf("%+v", again)
	}
	other := s.post("", "other", "Idempotency-Key", "k")
	if other.status != http.StatusBadRequest || other.header.Get("Content-Type") != "application/json" || other.header.Get("Stripe-Should-Retry") != "false" ||
		other.body != `{"error":{"type":"idempotency_error","code":"idempotency_key_mismatch","message":"This idempotency key was used with another request. Different: body."}}` {
		t.Fatalf("%+v", other)
	}
	// Only POST takes part.
	go s.send("PUT", "", "b", "Idempotency-Key", "k")
	<-running
	finish <- true
	s.ran(2)
}

func TestStatusesAndHeadersOfAContractOfOnesOwn(t *testing.T) {
	contract := Contract{Headers: []string{"request-id"}, Methods: []string{"GET", "PUT"}, Statuses: Statuses{KeyMissing: http.StatusPreconditionRequired}}
	s := serve(t, Options{Contract: contract, Required: true}, created)
	missing, err := s.send("PUT", "ignored", "b")
	if err != nil {
		t.Fatal(err)
	}
	s.refused(missing, http.StatusPreconditionRequired, "idempotency_key_missing")
	for range 2 {
		if _, err := s.send("PUT", "", "b", "Request-Id", "k"); err != nil {
			t.Fatal(err)
		}
		s.post("", "b", "Request-Id", "k")
	}
	s.ran(3)
	defer func() {
		if recover() == nil {
			t.Fatal("a refusal with the status 99")
		}
	}()
	New(s.engine, Options{Contract: Contract{Statuses: Statuses{Locked: 99}}})
}

func TestADuplicateWaitsForTheResponse(t *testing.T) {
	running, finish := make(chan bool), make(chan bool)
	s := serve(t, Options{Wait: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
		running <- true
		<-finish
		created(w, r)
	})
	done := make(chan answer)
	for range 2 {
		go func() { done <- s.post("k", "b") }()
	}
	<-running
	s.until(func() bool { stats, _ := s.engine.Stats(); return stats.Waiters == 1 })
	finish <- true
	same(t, <-done, <-done)
	s.ran(1)
}

// expires is how long a response is replayed, in the store.
func (s *server) expires(key string) time.Duration {
	s.t.Helper()
	found, err := s.engine.Get(oncekey.Key{Key: key})
	recorded, completed := found.(*oncekey.Recorded)
	if err != nil || !completed {
		s.t.Fatalf("%T %v", found, err)
	}
	return recorded.ExpiresAt.Sub(recorded.CompletedAt)
}

func TestResponsesExpireAsTheMiddlewareOrTheHandlerSays(t *testing.T) {
	s := serve(t, Options{TTL: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "short" {
			FromContext(r.Context()).SetTTL(time.Minute)
		}
		if r.Header.Get("Accept-Language") == "stream" {
			FromContext(r.Context()).NotStored()
		}
		created(w, r)
	})
	s.post("long", "b")
	s.post("short", "b", "Accept", "short")
	s.post("stream", "b", "Accept", "short", "Accept-Language", "stream")
	for key, expected := range map[string]time.Duration{"long": time.Hour, "short": time.Minute, "stream": time.Minute} {
		if got := s.expires(key); got != expected {
			t.Errorf("%s: %s", key, got)
		}
	}
	plain := serve(t, Options{}, created)
	plain.post("k", "b")
	if got := plain.expires("k"); got != 24*time.Hour {
		t.Error(got)
	}
}

func TestWhichResponsesAreStored(t *testing.T) {
	only201 := AtLeastOnceUnless(func(status int, header http.Header) bool { return status == 201 && header.Get("X-Done") == "1" })
	for name, policy := range map[string]struct {
		stored           Stored
		freeing, storing []int
	}{
		"every":      {EveryResponse, []int{401, 425, 429}, []int{200, 302, 400, 408, 500, 503}},
		"server":     {AtLeastOnceAfterServerErrors, []int{401, 425, 429, 408, 500, 503}, []int{200, 302, 400, 404}},
		"successful": {AtLeastOnceUnlessSuccessful, []int{400, 401, 404, 408, 429, 500}, []int{200, 204, 302}},
		"only 201":   {only201, []int{200, 401, 500}, []int{201}},
	} {
		s := serve(t, Options{Stored: policy.stored}, func(w http.ResponseWriter, r *http.Request) {
			var status int
			fmt.Sscan(r.Header.Get("Accept"), &status)
			w.Header().Set("X-Done", "1")
			w.WriteHeader(status)
		})
		s.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		for runs, statuses := range map[int32][]int{1: policy.storing, 2: policy.freeing} {
			for _, status := range statuses {
				s.runs.Store(0)
				for range 2 {
					if got := s.post(fmt.Sprint(status), "b", "Accept", fmt.Sprint(status)); got.status != status {
						t.Fatal(name, status, got)
					}
				}
				if got := s.runs.Load(); got != runs {
					t.Errorf("%s: %d ran %d times", name, status, got)
				}
			}
		}
	}
}

func TestDroppedHeadersAreSentOnce(t *testing.T) {
	s := serve(t, Options{DropHeaders: []string{"set-cookie"}}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "a=1")
		w.Header().Set("Location", "/orders/7")
		created(w, r)
	})
	if first := s.post("k", "b"); first.header.Get("Set-Cookie") != "a=1" {
		t.Fatal(first.header)
	}
	if again := s.post("k", "b"); again.header.Get("Set-Cookie") != "" || again.header.Get("Location") != "/orders/7" {
		t.Fatal(again.header)
	}
	s.ran(1)
}

func TestAHandlerMaySayThatTheOutcomeIsUnknown(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		attempt := FromContext(r.Context())
		if attempt.Key != (oncekey.Key{Key: "k"}) {
			t.Error(attempt.Key)
		}
		attempt.NotExecuted()
		attempt.OutcomeUnknown()
		http.Error(w, "the upstream broke off", http.StatusBadGateway)
	})
	if got := s.post("k", "b"); got.status != http.StatusBadGateway {
		t.Fatal(got)
	}
	s.refused(s.post("k", "b"), http.StatusConflict, "idempotency_outcome_unknown")
	s.ran(1)
	if stats := s.middleware.Stats(); stats.Abandoned != 1 || stats.NotExecuted != 0 {
		t.Fatalf("%+v", stats)
	}
}

func TestAResponseControllerReachesTheConnection(t *testing.T) {
	s := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		connection := http.NewResponseController(w)
		for name, err := range map[string]error{
			"read":  connection.SetReadDeadline(time.Now().Add(time.Hour)),
			"write": connection.SetWriteDeadline(time.Now().Add(time.Hour)),
			"full":  connection.EnableFullDuplex(),
			"flush": connection.Flush(),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		created(w, r)
	})
	first := s.post("k", "b")
	same(t, first, s.post("k", "b"))
	s.ran(1)
}

func TestOperatorsResolveOrphans(t *testing.T) {
	s := serve(t, Options{}, func(http.ResponseWriter, *http.Request) { panic("died") })
	backups := t.TempDir()
	operators := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "operator" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	// The process changes its directory later, and a relative path keeps its meaning.
	t.Chdir(filepath.Dir(backups))
	admin := adminOf(t, s.middleware.Admin(operators, AdminOptions{Backups: filepath.Base(backups)}))
	t.Chdir(t.TempDir())
	for _, key := range []string{"a b%", "told"} {
		if _, err := s.send("POST", key, "b"); err == nil {
			t.Fatal("no panic")
		}
	}
	// A claim that a panic left behind is an orphan at once, and listed once that is durable.
	s.until(func() bool { return admin.get("/orphans", http.StatusOK)["total"] == 2.0 })
	listed := admin.get("/orphans?limit=1", http.StatusOK)
	if listed["total"] != 2.0 || len(listed["orphans"].([]any)) != 1 {
		t.Fatal(listed)
	}
	orphan := admin.get("/keys?key=a%20b%25", http.StatusOK)
	if orphan["state"] != "orphaned" || orphan["key"] != "a%20b%25" || orphan["checkpointBytes"] != nil || orphan["attempt"] != 1.0 {
		t.Fatal(orphan)
	}
	seen := fmt.Sprintf(`{"key":"a%%20b%%25","token":"%s"}`, orphan["token"])
	admin.post("/orphans/release", `{"key":"a%20b%25","token":"other"}`, http.StatusConflict)
	admin.post("/orphans/release", seen, http.StatusOK)
	admin.post("/orphans/release", seen, http.StatusConflict)
	if admin.get("/keys?key=a%20b%25", http.StatusOK)["state"] != "absent" {
		t.Fatal("it is not free")
	}
	token := admin.get("/keys?key=told", http.StatusOK)["token"]
	done := admin.post("/orphans/complete", fmt.Sprintf(`{"key":"told","token":"%s","status":201,"headers":[["x-a","1"]],"body":"created"}`, token), http.StatusOK)
	if done["responseKept"] != true {
		t.Fatal(done)
	}
	if got := s.post("told", "b"); got.status != http.StatusCreated || got.body != "created" || got.header.Get("X-A") != "1" {
		t.Fatalf("%+v", got)
	}
	told := admin.get("/keys?key=told", http.StatusOK)
	if fmt.Sprintf("%v %v", told["state"], told["response"]) != "completed map[bodyBytes:7 status:201]" {
		t.Fatal(told)
	}
	stats := admin.get("/stats", http.StatusOK)
	if stats["layer"].(map[string]any)["abandoned"] != 2.0 || stats["engine"].(map[string]any)["released"] != 1.0 {
		t.Fatal(stats)
	}
	if teststore.Shared() {
		// The server has backups of its own.
		admin.post("/backups", `{"name":"2026-07-01"}`, http.StatusNotImplemented)
	} else if path := admin.post("/backups", `{"name":"2026-07-01"}`, http.StatusOK)["path"]; path != filepath.Join(backups, "2026-07-01") {
		t.Fatal(path)
	} else if err := oncekey.Verify(path.(string)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "../a", "a/b", "a b", "\u00fc"} {
		admin.post("/backups", fmt.Sprintf(`{"name":%q}`, name), http.StatusBadRequest)
	}
	for _, path := range []string{"/keys", "/keys?key=%zz", "/orphans?limit=x", "/keys?key=" + strings.Repeat("k", 256)} {
		admin.get(path, http.StatusBadRequest)
	}
	if status, _ := admin.ask("POST", "/orphans/release", seen, "Content-Type", "text/plain", "Authorization", "operator"); status != http.StatusUnsupportedMediaType {
		t.Fatal(status)
	}
	for _, path := range []string{"/stats", "/nothing"} {
		if status, _ := admin.ask("GET", path, ""); status != http.StatusUnauthorized {
			t.Fatal(path, status)
		}
	}
	defer func() {
		if recover() == nil {
			t.Fatal("an admin handler without authentication")
		}
	}()
	s.middleware.Admin(nil, AdminOptions{})
}

// The members of both sides are the same: a dashboard reads either.
func TestStatisticsAreNamedAsInRust(t *testing.T) {
	names := members(Stats{})
	for _, name := range strings.Fields("running keyRefused bufferedBytes bodyRefused bodyOverloaded storeUnavailable completeFailed " +
		"notStored notExecuted abandoned undecodable unscopedCookies") {
		if _, is := names[name]; !is {
			t.Error(name)
		}
		delete(names, name)
	}
	if len(names) > 0 {
		t.Error(names)
	}
	engine := members(oncekey.Stats{OldestClaim: time.Second})
	if engine["oldestClaimMs"] != int64(1000) || engine["backupBytesCopied"] != uint64(0) || engine["full"] != false {
		t.Error(engine)
	}
}

func TestOptionsThatNoRequestCouldBeServedWithAreRefusedAtOnce(t *testing.T) {
	engine := openEngine(t)
	for name, options := range map[string]Options{
		"MaxRequestBody": {MaxRequestBody: -1},
		"MaxBuffered":    {MaxBuffered: math.MinInt64},
		"MaxResponse":    {MaxResponse: -1},
		"BodyIdle":       {BodyIdle: -1},
		"Wait":           {Wait: -time.Second},
		"TTL":            {TTL: time.Millisecond - 1},
	} {
		options.Logger = quiet()
		func() {
			defer func() {
				if said := fmt.Sprint(recover()); !strings.Contains(said, name) {
					t.Errorf("%s: %s", name, said)
				}
			}()
			New(engine, options)
		}()
	}
}
