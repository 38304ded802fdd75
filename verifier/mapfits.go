package verifier

import (
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
)

// Helpers that the verifier knows more of than their prototype.
const (
	helperMapLookup            = 1
	helperMapUpdate            = 2
	helperMapDelete            = 3
	helperGetSMPProcessorID    = 8
	helperTailCall             = 12
	helperPerfEventRead        = 22
	helperPerfEventOutput      = 25
	helperGetStackID           = 27
	helperSkbUnderCgroup       = 33
	helperCurrentUnderCgroup   = 37
	helperProbeReadStr         = 45
	helperRedirectMap          = 51
	helperSkRedirectMap        = 52
	helperSockMapUpdate        = 53
	helperPerfEventReadValue   = 55
	helperMsgRedirectMap       = 60
	helperGetStack             = 67
	helperSockHashUpdate       = 70
	helperMsgRedirectHash      = 71
	helperSkRedirectHash       = 72
	helperGetLocalStorage      = 81
	helperSkSelectReuseport    = 82
	helperSkLookupTCP          = 84
	helperSkLookupUDP          = 85
	helperMapPush              = 87
	helperMapPop               = 88
	helperMapPeek              = 89
	helperSpinLock             = 93
	helperSpinUnlock           = 94
	helperSkFullsock           = 95
	helperTCPSock              = 96
	helperSkcLookupTCP         = 99
	helperSkStorageGet         = 107
	helperSkStorageDelete      = 108
	helperSkbOutput            = 111
	helperProbeReadUserStr     = 114
	helperProbeReadKernelStr   = 115
	helperXDPOutput            = 121
	helperRingbufOutput        = 130
	helperRingbufReserve       = 131
	helperRingbufQuery         = 134
	helperSkcToTCP6Sock        = 136
	helperSkcToTCPSock         = 137
	helperSkcToTCPTimewait     = 138
	helperSkcToTCPRequest      = 139
	helperSkcToUDP6Sock        = 140
	helperGetTaskStack         = 141
	helperInodeStorageGet      = 145
	helperInodeStorageDelete   = 146
	helperPerCPUPtr            = 153
	helperThisCPUPtr           = 154
	helperTaskStorageGet       = 156
	helperTaskStorageDelete    = 157
	helperForEachMapElem       = 164
	helperSnprintf             = 165
	helperTimerSetCallback     = 170
	helperGetFuncIP            = 173
	helperSkcToUnixSock        = 178
	helperFindVMA              = 180
	helperLoop                 = 181
	helperKptrXchg             = 194
	helperMapLookupPercpu      = 195
	helperSkcToMPTCPSock       = 196
	helperDynptrFromMem        = 197
	helperRingbufReserveDynptr = 198
	helperRingbufSubmitDynptr  = 199
	helperRingbufDiscardDynptr = 200
	helperDynptrRead           = 201
	helperDynptrWrite          = 202
	helperDynptrData           = 203
	helperUserRingbufDrain     = 209
	helperCgrpStorageGet       = 210
	helperCgrpStorageDelete    = 211
)

// syncCallbackHelper reports whether a helper calls a function of the program
// before it returns.
func syncCallbackHelper(id int64) bool {
	switch id {
	case helperForEachMapElem, helperFindVMA, helperLoop, helperUserRingbufDrain:
		return true
	}
	return false
}

// packetMovers are the helpers that may move the packet
// (bpf_helper_changes_pkt_data), tail calls among them, since what is called
// may do so.
var packetMovers = []string{
	"clone_redirect", "l3_csum_replace", "l4_csum_replace", "lwt_push_encap", "lwt_seg6_action", "lwt_seg6_adjust_srh",
	"lwt_seg6_store_bytes", "msg_pop_data", "msg_pull_data", "msg_push_data", "skb_adjust_room", "skb_change_head",
	"skb_change_proto", "skb_change_tail", "skb_pull_data", "skb_store_bytes", "skb_vlan_pop", "skb_vlan_push",
	"store_hdr_opt", "xdp_adjust_head", "xdp_adjust_meta", "xdp_adjust_tail", "tail_call",
}

func changesPacket(h *abi.Helper) bool {
	return slices.Contains(packetMovers, strings.TrimPrefix(h.Name, "bpf_"))
}

// mapHelpers are the helpers that maps of a type are for, and helperMaps the
// maps that a helper takes (check_map_func_compatibility).
var mapHelpers = map[abi.MapType][]int32{
	abi.MapProgArray:                     {helperTailCall},
	abi.MapPerfEventArray:                {helperPerfEventRead, helperPerfEventOutput, helperSkbOutput, helperPerfEventReadValue, helperXDPOutput},
	abi.MapRingbuf:                       {helperRingbufOutput, helperRingbufReserve, helperRingbufQuery, helperRingbufReserveDynptr, helperRingbufSubmitDynptr, helperRingbufDiscardDynptr},
	abi.MapUserRingbuf:                   {helperUserRingbufDrain},
	abi.MapStackTrace:                    {helperGetStackID},
	abi.MapCgroupArray:                   {helperSkbUnderCgroup, helperCurrentUnderCgroup},
	abi.MapCgroupStorageDeprecated:       {helperGetLocalStorage},
	abi.MapPercpuCgroupStorageDeprecated: {helperGetLocalStorage},
	abi.MapDevmap:                        {helperRedirectMap, helperMapLookup},
	abi.MapDevmapHash:                    {helperRedirectMap, helperMapLookup},
	abi.MapCpumap:                        {helperRedirectMap},
	abi.MapXskmap:                        {helperRedirectMap, helperMapLookup},
	abi.MapArrayOfMaps:                   {helperMapLookup},
	abi.MapHashOfMaps:                    {helperMapLookup},
	abi.MapSockmap:                       {helperSkRedirectMap, helperSockMapUpdate, helperMsgRedirectMap, helperSkSelectReuseport, helperMapLookup},
	abi.MapSockhash:                      {helperSkRedirectHash, helperSockHashUpdate, helperMsgRedirectHash, helperSkSelectReuseport, helperMapLookup},
	abi.MapReuseportSockarray:            {helperSkSelectReuseport},
	abi.MapQueue:                         {helperMapPeek, helperMapPop, helperMapPush},
	abi.MapStack:                         {helperMapPeek, helperMapPop, helperMapPush},
	abi.MapSkStorage:                     {helperSkStorageGet, helperSkStorageDelete, helperKptrXchg},
	abi.MapInodeStorage:                  {helperInodeStorageGet, helperInodeStorageDelete, helperKptrXchg},
	abi.MapTaskStorage:                   {helperTaskStorageGet, helperTaskStorageDelete, helperKptrXchg},
	abi.MapCgrpStorage:                   {helperCgrpStorageGet, helperCgrpStorageDelete, helperKptrXchg},
	abi.MapBloomFilter:                   {helperMapPeek, helperMapPush},
}

var helperMaps = map[int32][]abi.MapType{
	helperTailCall:             {abi.MapProgArray},
	helperPerfEventRead:        {abi.MapPerfEventArray},
	helperPerfEventOutput:      {abi.MapPerfEventArray},
	helperPerfEventReadValue:   {abi.MapPerfEventArray},
	helperSkbOutput:            {abi.MapPerfEventArray},
	helperXDPOutput:            {abi.MapPerfEventArray},
	helperRingbufOutput:        {abi.MapRingbuf},
	helperRingbufReserve:       {abi.MapRingbuf},
	helperRingbufQuery:         {abi.MapRingbuf},
	helperRingbufReserveDynptr: {abi.MapRingbuf},
	helperRingbufSubmitDynptr:  {abi.MapRingbuf},
	helperRingbufDiscardDynptr: {abi.MapRingbuf},
	helperUserRingbufDrain:     {abi.MapUserRingbuf},
	helperGetStackID:           {abi.MapStackTrace},
	helperCurrentUnderCgroup:   {abi.MapCgroupArray},
	helperSkbUnderCgroup:       {abi.MapCgroupArray},
	helperRedirectMap:          {abi.MapDevmap, abi.MapDevmapHash, abi.MapCpumap, abi.MapXskmap},
	helperSkRedirectMap:        {abi.MapSockmap},
	helperMsgRedirectMap:       {abi.MapSockmap},
	helperSockMapUpdate:        {abi.MapSockmap},
	helperSkRedirectHash:       {abi.MapSockhash},
	helperMsgRedirectHash:      {abi.MapSockhash},
	helperSockHashUpdate:       {abi.MapSockhash},
	helperGetLocalStorage:      {abi.MapCgroupStorageDeprecated, abi.MapPercpuCgroupStorageDeprecated},
	helperSkSelectReuseport:    {abi.MapReuseportSockarray, abi.MapSockmap, abi.MapSockhash},
	helperMapPop:               {abi.MapQueue, abi.MapStack},
	helperMapPeek:              {abi.MapQueue, abi.MapStack, abi.MapBloomFilter},
	helperMapPush:              {abi.MapQueue, abi.MapStack, abi.MapBloomFilter},
	helperMapLookupPercpu:      {abi.MapPercpuArray, abi.MapPercpuHash, abi.MapLRUPercpuHash},
	helperSkStorageGet:         {abi.MapSkStorage},
	helperSkStorageDelete:      {abi.MapSkStorage},
	helperInodeStorageGet:      {abi.MapInodeStorage},
	helperInodeStorageDelete:   {abi.MapInodeStorage},
	helperTaskStorageGet:       {abi.MapTaskStorage},
	helperTaskStorageDelete:    {abi.MapTaskStorage},
	helperCgrpStorageGet:       {abi.MapCgrpStorage},
	helperCgrpStorageDelete:    {abi.MapCgrpStorage},
}

// mapFits checks that a helper and its map go together.
func (v *verifier) mapFits(meta *callMeta) *Error {
	if meta.m < 0 {
		return nil
	}
	m, id := v.maps[meta.m], meta.helper.ID
	ok := true
	if only, limited := mapHelpers[m.Type]; limited && !slices.Contains(only, id) {
		ok = (m.Type == abi.MapSockmap || m.Type == abi.MapSockhash) && v.updatesSockets(id)
	}
	if only, limited := helperMaps[id]; limited && !slices.Contains(only, m.Type) {
		ok = false
	}
	if !ok {
		return v.fail("wrong-map", -1, "%s does not take map %s, which is a %s", meta.helper.Name, m.Name, m.Type)
	}
	return nil
}

// updatesSockets reports whether the program may change maps of sockets by a
// helper (may_update_sockmap).
func (v *verifier) updatesSockets(id int32) bool {
	if id != helperMapUpdate && id != helperMapDelete {
		return false
	}
	switch v.prog.Type {
	case abi.ProgTracing:
		return v.prog.Attach == abi.AttachTraceIter
	case abi.ProgSockOps:
		return id == helperMapDelete
	case abi.ProgSocketFilter, abi.ProgSchedCls, abi.ProgSchedAct, abi.ProgXDP, abi.ProgSkReuseport, abi.ProgFlowDissector, abi.ProgSkLookup:
		return true
	}
	return false
}
