package control

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/distributedcompute/host-agent/core/account"
	"github.com/distributedcompute/host-agent/core/rental"
)

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	// A reader that went away is no one's problem; one that does not read must not keep us.
	if http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) == nil {
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(body)
	}
}

func refuse(w http.ResponseWriter, code int, word, message string) {
	answer(w, code, Refusal{Code: word, Message: message})
}

// refuseError answers with the code an error carries.
func refuseError(w http.ResponseWriter, err error) {
	word := string(rental.CodeInternal)
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		word = refusal.Code
	} else if failure, ok := errors.AsType[*account.Failure](err); ok {
		word = failure.Code
	} else if failure, ok := errors.AsType[*rental.Failure](err); ok {
		word = string(failure.Code)
	}
	refuse(w, httpCode(word), word, err.Error())
}

func httpCode(word string) int {
	switch rental.Code(word) {
	case rental.CodeInvalid:
		return http.StatusBadRequest
	case rental.CodeNotFound:
		return http.StatusNotFound
	case rental.CodeConflict:
		return http.StatusConflict
	case rental.CodeDockerUnavailable, "starting":
		return http.StatusServiceUnavailable
	case rental.CodeTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
