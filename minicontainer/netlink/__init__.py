"""The only raw AF_NETLINK: how one tells the kernel about links, addresses, routes, firewall rules, connections.

codec.py       messages and attributes, and the socket that they go through
route.py       rtnetlink(7): what `ip` does
nft.py         nfnetlink, nf_tables: what `nft` does, and what rules are made of
conntrack.py   nfnetlink: what `conntrack -D` does

Offers, each as one call that returns when the kernel has answered:
    link_add link_set link_delete link_wait address_add route_add
    nft, one transaction a call, and the expressions that rules are made of; nft_text, the same in words
    delete_elements, as many as are there
    link links addresses routes namespace_number chains rules elements element has_table, what is there
    conntrack_delete
Callers name devices, never numbers; `namespace` is the pid of a process in the network namespace meant, 0 for ours.

Contract: a refusal raises KernelError with the message's name, what was asked and the kernel's own words (its
"extended ack"). Imports nothing but _socket and struct: this is on the path of every start.
"""

from .codec import attribute, attributes, nested, number, string, text
from .conntrack import conntrack_delete
from .nftables import (
    CHUNK,
    FAMILIES,
    HOOKS,
    NF_ACCEPT,
    NF_DROP,
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
    PROTOCOLS,
    Chain,
    Element,
    Expression,
    Rule,
    Set,
    accept,
    address_among,
    address_in,
    address_is,
    chains,
    counter,
    ct_state,
    ct_status,
    delete_elements,
    destination_is_local,
    dnat_by_map,
    drop,
    element,
    elements,
    has_table,
    ifname_in,
    ifname_is,
    ifname_is_not,
    ifname_pair_in,
    jump,
    masquerade,
    neighbour_advertised,
    nft,
    nft_text,
    port_becomes,
    protocol_is,
    rules,
    sender_among,
    sender_not_among,
    something_between,
)
from .route import (
    MODES,
    Link,
    Route,
    address_add,
    addresses,
    link,
    link_add,
    link_delete,
    link_set,
    link_wait,
    links,
    namespace_number,
    route_add,
    routes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .nftables import Command as Command
