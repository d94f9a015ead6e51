package protocol

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A request to offer no GPU is not one that says nothing of GPUs.
func TestNoGPUIsNotAnyGPU(t *testing.T) {
	for field, want := range map[string][]int{
		``:                      nil,
		`"gpu_indices":null`:    nil,
		`"gpu_indices":[]`:      {},
		`"gpu_indices":[1]`:     {1},
		`"gpu_indices":[ 1, 0]`: {1, 0},
	} {
		in, err := Decode([]byte(`{"event":"set_offer_request","id":"1","data":{"offer":{` + field + `}}}`))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, in.Data.(*SetOfferRequest).Offer.GPUIndices); diff != "" {
			t.Errorf("%s (-want +got):\n%s", field, diff)
		}
		again, err := Encode("1", in.Data)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Decode(again); err != nil || !cmp.Equal(back.Data, in.Data) {
			t.Errorf("%s: sent on as %s, %v", field, again, err)
		}
	}
}
