package oncekeyhttp

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// AdminOptions of an admin handler.
type AdminOptions struct {
	// Backups is the directory in which operators may take backups, each in a new directory. A relative path
	// starts at the present directory of the process, whatever that is later. Default: no backups.
	Backups string
}

// maxAdminBody is the longest body of a request of an operator, in bytes.
const maxAdminBody = 32 << 20

// Admin returns a handler for operators. Mount it at a path of your choice, with [http.StripPrefix] below a
// prefix. Requests and answers are those of the router of oncekey-http, which docs/operations.md describes:
// GET /stats, GET /orphans, GET /keys, POST /orphans/release, POST /orphans/complete, POST /backups. The
// paths below /api/v1 of that router, for the console and the command line, are not served here:
// [oncekey.Engine.ControlSocket] serves them.
//
// authenticate wraps the whole handler, also for paths that do not exist. It must let operators through and
// refuse everyone else. Admin panics when it is nil.
func (m *Middleware) Admin(authenticate func(http.Handler) http.Handler, options AdminOptions) http.Handler {
	if authenticate == nil {
		panic("oncekeyhttp: an admin handler needs an authentication")
	}
	if options.Backups != "" {
		if whole, err := filepath.Abs(options.Backups); err == nil {
			options.Backups = whole
		}
	}
	desk := desk{middleware: m, options: options}
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET /stats":             desk.stats,
		"GET /orphans":           desk.orphans,
		"GET /keys":              desk.lookUp,
		"POST /orphans/release":  desk.release,
		"POST /orphans/complete": desk.complete,
		"POST /backups":          desk.backUp,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxAdminBody)
			found, err := answer(r)
			status := http.StatusOK
			if err != nil {
				refused := refusalOf(err)
				status, found = refused.status, map[string]any{"error": refused.message, "code": refused.code}
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(found)
		})
	}
	return authenticate(mux)
}

type desk struct {
	middleware *Middleware
	options    AdminOptions
}

// refusal is the reason why a request of an operator is not carried out.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string { return r.message }

func bad(format string, values ...any) error {
	return &refusal{http.StatusBadRequest, "invalid", fmt.Sprintf(format, values...)}
}

// refusalOf returns the refusal for an error, with a status for each kind of error of the engine.
func refusalOf(err error) *refusal {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, oncekey.ErrInvalidInput):
		return &refusal{http.StatusBadRequest, "invalid", err.Error()}
	case errors.Is(err, oncekey.ErrFenced), errors.Is(err, oncekey.ErrAlreadyCompleted):
		return &refusal{http.StatusConflict, "conflict", err.Error()}
	case errors.Is(err, oncekey.ErrUnsupported):
		return &refusal{http.StatusNotImplemented, "unsupported", err.Error()}
	case errors.Is(err, oncekey.ErrCorrupted):
		return &refusal{http.StatusServiceUnavailable, "damaged", err.Error()}
	default:
		return &refusal{http.StatusServiceUnavailable, "unavailable", err.Error()}
	}
}

func (d desk) stats(*http.Request) (any, error) {
	engine, err := d.middleware.engine.Stats()
	if err != nil {
		return nil, err
	}
	counted := members(engine)
	if engine.InFlight == 0 {
		counted["oldestClaimMs"] = nil
	}
	return map[string]any{"engine": counted, "layer": members(d.middleware.Stats())}, nil
}

// members returns JSON members for the fields of a struct of numbers: OpenBytes becomes openBytes, and the
// name of a duration ends in Ms.
func members(of any) map[string]any {
	value := reflect.ValueOf(of)
	members := map[string]any{}
	for i := range value.NumField() {
		name := value.Type().Field(i).Name
		name = string(unicode.ToLower(rune(name[0]))) + name[1:]
		switch field := value.Field(i).Interface().(type) {
		case time.Duration:
			members[name+"Ms"] = field.Milliseconds()
		default:
			members[name] = field
		}
	}
	return members
}

func (d desk) orphans(r *http.Request) (any, error) {
	limit := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		parsed, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return nil, bad("limit cannot be read")
		}
		limit = int(parsed)
	}
	orphans, err := d.middleware.engine.Orphans()
	defer func() {
		for _, orphan := range orphans {
			orphan.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	listed := []any{}
	for _, orphan := range orphans[:min(limit, len(orphans))] {
		listed = append(listed, describe(orphan))
	}
	return map[string]any{"total": len(orphans), "orphans": listed}, nil
}

func describe(orphan *oncekey.Orphan) map[string]any {
	described := map[string]any{
		"scope":           percentEncode(orphan.Key.Scope),
		"key":             percentEncode(orphan.Key.Key),
		"token":           orphan.Token.String(),
		"attempt":         orphan.Attempt,
		"sinceMs":         orphan.Since.UnixMilli(),
		"ageMs":           max(time.Since(orphan.Since).Milliseconds(), 0),
		"checkpointBytes": nil,
	}
	// A damaged checkpoint is not reported here, but it still exists for the caller who resolves the orphan.
	if checkpoint, err := orphan.Checkpoint(); err == nil && checkpoint != nil {
		described["checkpointBytes"] = len(checkpoint)
	}
	return described
}

// lookUp describes a response by its status and length, without its content.
func (d desk) lookUp(r *http.Request) (any, error) {
	query, err := url.ParseQuery(strings.ReplaceAll(r.URL.RawQuery, "+", "%2B"))
	if err != nil {
		return nil, bad("a %% needs two hexadecimal digits after it")
	}
	if !query.Has("key") {
		return nil, bad("key is missing")
	}
	found, err := d.middleware.engine.Get(oncekey.Key{Scope: query.Get("scope"), Key: query.Get("key")})
	if err != nil {
		return nil, err
	}
	switch found := found.(type) {
	case *oncekey.InFlight:
		return map[string]any{
			"state": "inFlight", "attempt": found.Attempt, "runningForMs": found.RunningFor.Milliseconds(),
		}, nil
	case *oncekey.Orphan:
		defer found.Close()
		described := describe(found)
		described["state"] = "orphaned"
		return described, nil
	case *oncekey.Recorded:
		return map[string]any{
			"state": "completed", "token": found.Token.String(), "response": looks(found.Response),
			"completedAtMs": found.CompletedAt.UnixMilli(), "expiresAtMs": found.ExpiresAt.UnixMilli(),
		}, nil
	default:
		return map[string]any{"state": "absent"}, nil
	}
}

func looks(stored []byte) any {
	if stored == nil {
		return nil
	}
	response, err := DecodeResponse(stored)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	return map[string]any{"status": response.Status, "bodyBytes": len(response.Body)}
}

// seen is an orphan as the operator saw it.
type seen struct {
	Scope, Key, Token string
}

// find returns the orphan, if it is still the one that the operator saw.
func (s *seen) find(engine *oncekey.Engine) (*oncekey.Orphan, error) {
	scope, err := url.PathUnescape(s.Scope)
	if err != nil {
		return nil, bad("a %% needs two hexadecimal digits after it")
	}
	key, err := url.PathUnescape(s.Key)
	if err != nil {
		return nil, bad("a %% needs two hexadecimal digits after it")
	}
	found, err := engine.Get(oncekey.Key{Scope: scope, Key: key})
	if err != nil {
		return nil, err
	}
	if orphan, is := found.(*oncekey.Orphan); is {
		if orphan.Token.String() == s.Token {
			return orphan, nil
		}
		orphan.Close()
	}
	return nil, &refusal{http.StatusConflict, "conflict", "the key is not, or no longer, the orphan that the token names"}
}

// read decodes the JSON body of a request. A browser sends its media type for another site only after a
// preflight.
func read(r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &refusal{http.StatusUnsupportedMediaType, "invalid", "the body must be of the type application/json"}
	}
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return bad("the body cannot be read: %s", err)
	}
	return nil
}

func (d desk) release(r *http.Request) (any, error) {
	var asked seen
	if err := read(r, &asked); err != nil {
		return nil, err
	}
	orphan, err := asked.find(d.middleware.engine)
	if err != nil {
		return nil, err
	}
	defer orphan.Close()
	return map[string]any{"released": true}, orphan.Release(r.Context())
}

func (d desk) complete(r *http.Request) (any, error) {
	var asked struct {
		seen
		Status  int
		Headers [][2]string
		Body    string
	}
	if err := read(r, &asked); err != nil {
		return nil, err
	}
	if asked.Status < 100 || asked.Status > 999 {
		return nil, bad("status is not an HTTP status")
	}
	header := http.Header{}
	for _, field := range asked.Headers {
		if !isToken(field[0]) || !isValue(field[1]) {
			return nil, bad("a header is not valid in HTTP")
		}
		header.Add(field[0], field[1])
	}
	response, err := NewResponse(asked.Status, header, []byte(asked.Body)).Encode()
	if err != nil {
		return nil, bad("%s", err)
	}
	orphan, err := asked.find(d.middleware.engine)
	if err != nil {
		return nil, err
	}
	defer orphan.Close()
	kept, err := orphan.Complete(r.Context(), response)
	return map[string]any{"completed": true, "responseKept": kept}, err
}

func (d desk) backUp(r *http.Request) (any, error) {
	var asked struct{ Name string }
	if err := read(r, &asked); err != nil {
		return nil, err
	}
	if d.options.Backups == "" {
		return nil, &refusal{http.StatusNotFound, "not_found", "backups are not set up"}
	}
	// A name cannot leave the directory, and cannot be hidden in it.
	plain := func(c rune) bool {
		return c < unicode.MaxASCII && (unicode.IsLetter(c) || unicode.IsDigit(c)) || strings.ContainsRune("-_.", c)
	}
	name := asked.Name
	if name == "" || name[0] == '.' || len(name) > 128 || strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) {
		return nil, bad("a name has 1 to 128 letters, digits, - _ . and no . in front")
	}
	path := filepath.Join(d.options.Backups, name)
	return map[string]any{"path": path}, d.middleware.engine.Backup(path)
}

// percentEncode keeps printable ASCII, except % and the blank.
func percentEncode(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; c > ' ' && c <= '~' && c != '%' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}
