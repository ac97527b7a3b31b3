/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Every built-in filter, one const vtable each, defined in the file of its name.  Only the
 * registry and tests need this header. */
#include "filter/filter.h"

extern const FilterKind filter_add_route_kind;
extern const FilterKind filter_arc_check_kind;
extern const FilterKind filter_arc_seal_kind;
extern const FilterKind filter_auth_results_kind;
extern const FilterKind filter_dkim_check_kind;
extern const FilterKind filter_dkim_sign_kind;
extern const FilterKind filter_dmarc_check_kind;
extern const FilterKind filter_dns_resolution_kind;
extern const FilterKind filter_dnsbl_check_kind;
extern const FilterKind filter_exploder_kind;
extern const FilterKind filter_exploder_upstream_kind;
extern const FilterKind filter_hello_kind;
extern const FilterKind filter_lua_kind;
extern const FilterKind filter_message_builder_kind;
extern const FilterKind filter_message_parser_kind;
extern const FilterKind filter_message_validation_kind;
extern const FilterKind filter_policy_action_kind;
extern const FilterKind filter_received_header_kind;
extern const FilterKind filter_remote_host_kind;
extern const FilterKind filter_rest_output_kind;
extern const FilterKind filter_router_kind;
extern const FilterKind filter_spf_check_kind;
extern const FilterKind filter_sync_kind;
