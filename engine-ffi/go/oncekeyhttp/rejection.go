package oncekeyhttp

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// rejection is the reason why the middleware answers a request instead of the handler.
type rejection struct {
	code       string
	detail     string
	extra      string // more members of a problem document, as JSON
	retryAfter bool
	wait       time.Duration // until a gRPC call is sent again; 0: a second, if retryAfter is set
	unread     bool          // the request is not read to its end
}

// The codes of refusals.
const (
	invalidCode        = "idempotency_key_invalid"
	missingCode        = "idempotency_key_missing"
	tooLargeCode       = "idempotency_body_too_large"
	unreadableCode     = "idempotency_body_unreadable"
	timeoutCode        = "idempotency_body_timeout"
	lockedCode         = "idempotency_key_locked"
	mismatchCode       = "idempotency_key_mismatch"
	outcomeUnknownCode = "idempotency_outcome_unknown"
	notStoredCode      = "idempotency_response_not_stored"
	unavailableCode    = "idempotency_store_unavailable"
	overloadedCode     = "idempotency_overloaded"
)

// of returns the status of a refusal with this code.
func (s *Statuses) of(code string) int {
	switch code {
	case invalidCode:
		return s.KeyInvalid
	case missingCode:
		return s.KeyMissing
	case tooLargeCode:
		return s.BodyTooLarge
	case unreadableCode:
		return s.BodyUnreadable
	case timeoutCode:
		return s.BodyTimeout
	case lockedCode:
		return s.Locked
	case mismatchCode:
		return s.Mismatch
	case outcomeUnknownCode:
		return s.OutcomeUnknown
	case notStoredCode:
		return s.ResponseNotStored
	case unavailableCode:
		return s.StoreUnavailable
	default:
		return s.Overloaded
	}
}

func invalidKey(reason string) *rejection {
	return &rejection{code: invalidCode, detail: "The idempotency key is refused: " + reason + "."}
}

// invalidInput is a refusal by the engine, with the engine's message.
func invalidInput(reason string) *rejection {
	return &rejection{code: invalidCode, detail: "The request is refused: " + reason + "."}
}

func invalidScope(length int) *rejection {
	return invalidInput(fmt.Sprintf("invalid input: the scope has %d bytes, at most 255 are allowed", length))
}

func missingKey(headers []string) *rejection {
	if len(headers) == 0 {
		return &rejection{code: missingCode, detail: "This operation needs an idempotency key."}
	}
	header := strings.ToLower(headers[0])
	return &rejection{code: missingCode, detail: "This operation needs an idempotency key in the header " + header + "."}
}

func bodyTooLarge(limit int64) *rejection {
	return &rejection{
		code:   tooLargeCode,
		detail: fmt.Sprintf("The request body has more than %d bytes. The key was not used.", limit),
	}
}

func bodyUnreadable() *rejection {
	return &rejection{code: unreadableCode, detail: "The request body ended before it was complete. The key was not used."}
}

func bodyTimeout() *rejection {
	return &rejection{
		code:   timeoutCode,
		detail: "The request body did not arrive in time. The key was not used.",
		unread: true,
	}
}

func bodiesOverBudget() *rejection {
	return &rejection{
		code:       overloadedCode,
		detail:     "The server holds as many request bodies as it can. The key was not used. Try again later.",
		retryAfter: true,
		unread:     true,
	}
}

func locked(retryAfter time.Duration) *rejection {
	return &rejection{
		code:       lockedCode,
		detail:     "A request with this idempotency key is being executed. Try again later.",
		extra:      fmt.Sprintf(`,"retryAfterMs":%d`, retryAfter.Milliseconds()),
		retryAfter: true,
		wait:       retryAfter,
	}
}

func mismatch(parts []string) *rejection {
	quotedParts := make([]string, len(parts))
	for i, part := range parts {
		quotedParts[i] = quoted(part)
	}
	return &rejection{
		code:   mismatchCode,
		detail: "This idempotency key was used with another request. Different: " + strings.Join(parts, ", ") + ".",
		extra:  `,"parts":[` + strings.Join(quotedParts, ",") + `]`,
	}
}

func outcomeUnknown() *rejection {
	return &rejection{
		code:   outcomeUnknownCode,
		detail: "An earlier attempt with this idempotency key ended without saying how. It may or may not have had its effect.",
	}
}

func responseNotStored() *rejection {
	return &rejection{
		code:   notStoredCode,
		detail: "The operation was completed, but its response was not stored. It is not executed again.",
	}
}

func storeUnavailable() *rejection {
	return &rejection{
		code:       unavailableCode,
		detail:     "The idempotency store is unavailable. This request was not executed.",
		retryAfter: true,
	}
}

func (r *rejection) problemDocument(status int, contract *Contract) string {
	title := http.StatusText(status)
	if status == http.StatusRequestEntityTooLarge {
		title = "Payload Too Large" // the title in the Rust layer
	}
	return `{"type":` + quoted(contract.Documentation) + `,"title":` + quoted(title) + `,"status":` + strconv.Itoa(status) +
		`,"code":"` + r.code + `","detail":` + quoted(r.detail) + r.extra + `}`
}

// stripeError returns Stripe's error object. Source: https://docs.stripe.com/api/errors.
func (r *rejection) stripeError(contract *Contract) string {
	kind, code := "invalid_request_error", r.code
	switch code {
	case lockedCode:
		// Source: https://docs.stripe.com/error-codes.
		kind, code = "idempotency_error", "idempotency_key_in_use"
	case mismatchCode, outcomeUnknownCode, notStoredCode:
		kind = "idempotency_error"
	case unavailableCode, overloadedCode:
		kind = "api_error"
	}
	link := ""
	if contract.Documentation != noDocumentation {
		link = `,"doc_url":` + quoted(contract.Documentation)
	}
	return `{"error":{"type":"` + kind + `","code":"` + code + `","message":` + quoted(r.detail) + link + `}}`
}

// write answers a request in the form that its call and the contract ask for.
func (r *rejection) write(w http.ResponseWriter, request *http.Request, contract *Contract) {
	if isGRPC(request.Header) {
		r.writeGRPC(w, request.Header.Get("Content-Type"))
		return
	}
	status := contract.Statuses.of(r.code)
	header := w.Header()
	var body string
	if contract.Refusals == StripeErrors {
		body = r.stripeError(contract)
		header.Set("Content-Type", "application/json")
		// Stripe's clients retry every 409 and 5xx that does not forbid it.
		header.Set("Stripe-Should-Retry", strconv.FormatBool(r.retryAfter))
	} else {
		body = r.problemDocument(status, contract)
		header.Set("Content-Type", "application/problem+json")
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if r.retryAfter {
		header.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	w.Write([]byte(body))
}

// quoted returns a JSON string with only the escapes that RFC 8259, section 7, requires. encoding/json has
// more.
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
