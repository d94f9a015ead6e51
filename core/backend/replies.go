package backend

import "sync"

const (
	rememberedIDs   = 1024
	rememberedBytes = 4 << 10 // of one answer; larger ones are asked for again
)

// replies remembers the ids of a connection's commands and how they were answered, so that a
// repeated command is answered again and not carried out again. The oldest are forgotten first.
type replies struct {
	mu         sync.Mutex
	connection uint64            // the number of the present one
	answers    map[string][]byte // nil: handed on, not answered yet
	order      []string
}

// begin notes a command. For one that is known already it gives the answer, nil while there is none.
func (r *replies) begin(id string) (answer []byte, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if answer, known = r.answers[id]; known {
		return answer, true
	}
	if len(r.order) >= rememberedIDs {
		delete(r.answers, r.order[0])
		r.order = r.order[1:]
	}
	if r.answers == nil {
		r.answers = map[string][]byte{}
	}
	r.answers[id] = nil
	r.order = append(r.order, id)
	return nil, false
}

// settle notes the answer to a command and reports whether it is to be sent: the first one, while the
// connection lasts that the command came over.
func (r *replies) settle(connection uint64, id string, answer []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.answers[id]
	switch {
	case connection != r.connection:
		return false
	case !known:
		return true // forgotten since
	case before != nil:
		return false
	case len(answer) <= rememberedBytes:
		r.answers[id] = answer
	default:
		r.forget(id)
	}
	return true
}

func (r *replies) forget(id string) {
	delete(r.answers, id)
	for i, known := range r.order {
		if known == id {
			r.order = append(r.order[:i:i], r.order[i+1:]...)
			return
		}
	}
}

// reset forgets everything: ids are the sender's, and a new connection may count from one again. It
// returns the number of that connection.
func (r *replies) reset() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connection++
	r.answers, r.order = nil, nil
	return r.connection
}
