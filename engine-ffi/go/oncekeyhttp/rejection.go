package oncekeyhttp

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// rejection is why a request is answered by the middleware and not by the handler: a problem document
// after RFC 9457.
type rejection struct {
	status     int
	title      string
	code       string
	detail     string
	extra      string // more members, as JSON
	retryAfter bool
	unread     bool // the request is not read to its end
}

const overloadedCode = "idempotency_overloaded"

func invalidKey(reason string) *rejection {
	return badRequest("idempotency_key_invalid", "The idempotency key is refused: "+reason+".")
}

// invalidInput is refused by the engine, in its own words.
func invalidInput(reason string) *rejection {
	return badRequest("idempotency_key_invalid", "The request is refused: "+reason+".")
}

func invalidScope(length int) *rejection {
	return invalidInput(fmt.Sprintf("invalid input: the scope has %d bytes, at most 255 are allowed", length))
}

func missingKey(header string) *rejection {
	return badRequest("idempotency_key_missing", "This operation needs an idempotency key in the header "+header+".")
}

func bodyTooLarge(limit int64) *rejection {
	return &rejection{
		status: http.StatusRequestEntityTooLarge,
		title:  "Payload Too Large",
		code:   "idempotency_body_too_large",
		detail: fmt.Sprintf("The request body has more than %d bytes. The key was not used.", limit),
	}
}

func bodyUnreadable() *rejection {
	return badRequest("idempotency_body_unreadable", "The request body ended before it was complete. The key was not used.")
}

func bodyTimeout() *rejection {
	return &rejection{
		status: http.StatusRequestTimeout,
		title:  "Request Timeout",
		code:   "idempotency_body_timeout",
		detail: "The request body did not arrive in time. The key was not used.",
		unread: true,
	}
}

func bodiesOverBudget() *rejection {
	return &rejection{
		status:     http.StatusServiceUnavailable,
		title:      "Service Unavailable",
		code:       overloadedCode,
		detail:     "The server holds as many request bodies as it can. The key was not used. Try again later.",
		retryAfter: true,
		unread:     true,
	}
}

func locked(retryAfter time.Duration) *rejection {
	refused := conflict("idempotency_key_locked", "A request with this idempotency key is being executed. Try again later.")
	refused.extra = fmt.Sprintf(`,"retryAfterMs":%d`, retryAfter.Milliseconds())
	refused.retryAfter = true
	return refused
}

func mismatch(parts []string) *rejection {
	refused := conflict("idempotency_key_mismatch",
		"This idempotency key was used with another request. Different: "+strings.Join(parts, ", ")+".")
	quotedParts := make([]string, len(parts))
	for i, part := range parts {
		quotedParts[i] = quoted(part)
	}
	refused.extra = `,"parts":[` + strings.Join(quotedParts, ",") + `]`
	return refused
}

func outcomeUnknown() *rejection {
	return conflict("idempotency_outcome_unknown",
		"An earlier attempt with this idempotency key ended without saying how. It may or may not have had its effect.")
}

func responseNotStored() *rejection {
	return conflict("idempotency_response_not_stored",
		"The operation was completed, but its response was not stored. It is not executed again.")
}

func storeUnavailable() *rejection {
	return &rejection{
		status:     http.StatusServiceUnavailable,
		title:      "Service Unavailable",
		code:       "idempotency_store_unavailable",
		detail:     "The idempotency store is unavailable. The operation was not executed.",
		retryAfter: true,
	}
}

func badRequest(code, detail string) *rejection {
	return &rejection{status: http.StatusBadRequest, title: "Bad Request", code: code, detail: detail}
}

func conflict(code, detail string) *rejection {
	return &rejection{status: http.StatusConflict, title: "Conflict", code: code, detail: detail}
}

func (r *rejection) json() string {
	return `{"type":"about:blank","title":` + quoted(r.title) + `,"status":` + strconv.Itoa(r.status) +
		`,"code":"` + r.code + `","detail":` + quoted(r.detail) + r.extra + `}`
}

func (r *rejection) write(w http.ResponseWriter) {
	body := r.json()
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if r.retryAfter {
		header.Set("Retry-After", "1")
	}
	w.WriteHeader(r.status)
	w.Write([]byte(body))
}

// quoted makes a JSON string, RFC 8259, section 7: with no more escapes than it asks for, which
// encoding/json has.
func quoted(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, c := range strings.ToValidUTF8(text, "\ufffd") {
		switch {
		case c == '"' || c == '\\':
			out.WriteByte('\\')
			out.WriteRune(c)
		case c < ' ':
			fmt.Fprintf(&out, `\u%04x`, c)
		default:
			out.WriteRune(c)
		}
	}
	out.WriteByte('"')
	return out.String()
}
