# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, embedsignature=True, binding=False
"""The boundary of the compiled loops: what comes from Python is checked here, once, and what is passed on are pointers and counts.

A typed argument (`const float[::1]`) refuses another type, another number of axes and memory that is not contiguous; `same` and `within` refuse
other lengths and rows of nothing. So a wrong array is a `ValueError`, never a wrong read. Each function here is the loop of the same name in `kernel.h`,
and says what `serving/native/kernel.py` says of it. Shapes as there.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memset

import numpy as np

cdef extern from "kernel.h":
    enum:
        NO_MEMORY, OUTSIDE, NOBODY, EXACT_ROWS, STEPS, MOST_SOURCES, MOST_LISTED, TAUS, LEVELS, WIDEST_SIDE, MOST_RULES, NEAR, PAGE
    int find_numpy_loops() except 0
    bint rows_within "within"(const int32_t *rows, size_t count, size_t below)
    int c_descending "descending"(const float *scores, size_t count, int32_t *order)

    ctypedef struct Excluded:
        const int32_t *rows
        size_t count

    ctypedef struct Past:
        const int32_t *rows
        const int32_t *clicked
        const float *decayed
        const float *mix
        const float *session
        size_t had, taus, events

    ctypedef struct Index:
        const uint64_t *keys
        const int32_t *rows
        const int32_t *steps
        size_t items
    ctypedef struct Events:
        const double *last
        const double *first
        const double *taus
        const float *counts
        const float *decayed
        size_t kinds
        double day
    ctypedef struct Aged:
        int32_t *rows
        int64_t *order
        float *counts
        float *age
        float *span
        float *decayed
    bint steps_are_sound(Index index, size_t steps)
    Py_ssize_t c_history "history"(Index index, const uint64_t *keys, size_t count, const Events *of, Aged out)

    ctypedef struct Table:
        const int8_t *rows
        const float *scales
        const float *prior
        size_t items, width
    int c_products "products"(const Table *table, const float *vector, float *out)
    int c_spans "spans"(const Table *table, const float *vector, const int64_t *begins, const int64_t *ends, size_t count, float *out)
    Py_ssize_t c_search "search"(const Table *table, const float *vector, const uint8_t *marked, size_t every, size_t n, Excluded out,
                                 float *values, int32_t *rows, float *scores)

    ctypedef struct Neighbours:
        const uint16_t *narrow
        const int32_t *wide
        const int32_t *position_of
        const int32_t *names
        const int16_t *weights
        const float *scales
        size_t size, k, items
    Py_ssize_t c_item_item "item_item"(const Neighbours *table, const Past *past, size_t limit, Excluded out, size_t n, float *sums,
                                       int32_t *rows, float *scores)

    Py_ssize_t c_buy_again "buy_again"(const Past *past, const float *factor, size_t known, float usual, size_t n, int32_t *rows, float *scores)
    bint embeds_here(size_t width)
    int c_history_embedding "history_embedding"(const uint16_t *table, size_t rows, size_t width, const Past *past, float *out)

    ctypedef struct Kinds:
        const uint16_t *at
        const int32_t *codes
        size_t groups, count
    ctypedef struct Offers:
        const int32_t *codes
        const int32_t *names
        const float *shares
        const float *worth
        const int64_t *ends
        const double *powers
        size_t groups, size, offers
        double prior
        Kinds first, second
    Py_ssize_t c_category_promotion "category_promotion"(const Offers *of, const Past *past, Excluded out, size_t n, float *values,
                                                         int32_t *rows, float *scores)

    ctypedef struct Listed:
        const int32_t *rows
        const int32_t *at
        const float *scores
        const float *values
        size_t listed, known, valued
        float weight, offset
        size_t promised
    ctypedef struct Lists:
        const Listed *lists
        const int32_t *history
        const uint8_t *flags
        size_t sources, had, pool, listed, items
        unsigned barring
    ctypedef struct Pooled:
        int32_t *rows
        float *fused
        float *ranks
        float *scores
        uint8_t *seen
    Py_ssize_t c_fuse "fuse"(const Lists *lists, Pooled out)

    ctypedef struct Item:
        pass
    ctypedef struct World:
        const Item *items
        size_t count, categories, brands, pairs
    ctypedef struct User:
        const int32_t *history
        const int32_t *clicked
        const float *counts
        const float *age
        const float *span
        const float *decayed
        const float *session
        size_t had, events, taste, recent
        float never, limit
    ctypedef struct Pool:
        const int32_t *rows
        const float *fused
        const float *ranks
        const float *scores
        const uint8_t *seen
        const uint8_t *display
        const uint8_t *mailer
        size_t count, sources
        float relative, offset
    size_t features_width(size_t sources)
    int c_features "features"(const World *world, User *user, const Pool *pool, float *out)

    ctypedef struct Ranker:
        const uint16_t *halves
        const int32_t *rows
        const int32_t *at
        const float *user
        const float *cross
        const float *mean
        const float *scale
        const float *panels
        const int64_t *sizes
        float clip
        size_t count, layers
    bint ranks_here()
    Py_ssize_t panels_of(const int64_t *sizes, size_t layers)
    int rank_candidates(const Ranker *ranker, float *out)
    ctypedef struct Heads:
        const double *weights
        const double *floors
        const uint8_t *judges
        size_t count
    int c_final_scores "final_scores"(const float *logits, const uint8_t *seen, const float *lifts, const int32_t *at, size_t count,
                                      Heads heads, float *out)

    ctypedef struct Cap:
        const int32_t *codes
        int64_t most
    ctypedef struct Floor:
        const uint8_t *new
        size_t least
    ctypedef struct Walk:
        const int32_t *rows
        const uint8_t *left_out
        const Cap *caps
        size_t count, cap_count, wanted
        int32_t *page
        int32_t *skipped
        uint8_t *by
        size_t skips
    ctypedef struct Met:
        int32_t *added
        size_t count, lacking
    bint c_first_page "first_page"(Walk *walk, const uint8_t *flags, unsigned bits, const Floor *floors, Met *met, size_t count)

    ctypedef struct Standard:
        const float *mean
        const float *scale
        const float *log_mean
        const float *log_scale
        const float *own_mean
        const float *own_spread
        size_t width, own
        float clip
    ctypedef struct UserLayers:
        const float *first
        const float *bias
        const float *second
        const float *own
        const float *own_bias
        const float *top
        const float *top_bias
        const float *bag
        size_t all, halves, hidden, dimensions
    bint sides_here()
    void c_user_side "user_side"(const Standard *standard, const UserLayers *layers, const float *features, size_t given, const float *bag,
                                 float *halves, float *vector)

find_numpy_loops()


cdef int same(str what, Py_ssize_t expected, Py_ssize_t found) except -1:
    if expected != found:
        raise ValueError(f"expected {expected} of {what}, got {found}")
    return 0


cdef int within(str what, const int32_t[::1] rows, Py_ssize_t below) except -1:
    if not rows_within(&rows[0], <size_t>rows.shape[0], <size_t>below):
        raise ValueError(f"expected {what} from 0 to {below - 1}")
    return 0


cdef Py_ssize_t done(Py_ssize_t count) except -1:
    """What a loop gave, if it is a count."""
    if count == NO_MEMORY:
        raise MemoryError("no memory for a request's tables")
    if count == OUTSIDE:
        raise ValueError("expected codes and neighbours within their tables")
    return count


cdef Excluded barred(const int32_t[::1] rows, Py_ssize_t below) except *:
    cdef Excluded out
    within("excluded rows", rows, below)
    out.rows, out.count = &rows[0], <size_t>rows.shape[0]
    return out


cdef const uint16_t[:, ::1] half(table):
    """A float16 table's bits."""
    if table.dtype != np.float16:
        raise ValueError(f"expected halves in float16, got {table.dtype}")
    return table.view(np.uint16)


cdef Past read_past(past, Py_ssize_t items) except *:
    cdef const int32_t[::1] rows = past.rows, clicked = past.clicked
    cdef const float[:, ::1] decayed = past.decayed
    cdef const float[::1] mix = past.mix, session = past.session
    cdef Past out
    same("decays of each history item", rows.shape[0], decayed.shape[1])
    same("decays", mix.shape[0], decayed.shape[0])
    same("weights of the session", clicked.shape[0], session.shape[0])
    within("rows of the history", rows, items)
    within("rows of the session", clicked, items)
    out.rows, out.clicked, out.decayed, out.mix, out.session = &rows[0], &clicked[0], &decayed[0, 0], &mix[0], &session[0]
    out.had, out.taus, out.events = <size_t>rows.shape[0], <size_t>mix.shape[0], <size_t>clicked.shape[0]
    return out


def descending(const float[::1] scores):
    order = np.empty(scores.shape[0], np.int32)
    cdef int32_t[::1] out = order
    done(c_descending(&scores[0], <size_t>scores.shape[0], &out[0]))
    return order


def history(catalogue, state, const double[::1] taus, double day):
    """Of a `UserState` on the rows of a `Catalogue`."""
    cdef const uint64_t[::1] sorted_keys = catalogue.sorted_keys, keys = state.keys
    cdef const int32_t[::1] key_order = catalogue.key_order, key_steps = catalogue.key_steps
    cdef const double[::1] last = state.last_day, first = state.first_day
    cdef const float[::1] of_counts = state.counts
    cdef const float[:, ::1] of_decayed = state.decayed
    cdef Py_ssize_t count = keys.shape[0], kinds = taus.shape[0], known
    cdef Index index
    cdef Events of
    cdef Aged aged
    index.keys, index.rows, index.steps, index.items = &sorted_keys[0], &key_order[0], &key_steps[0], <size_t>sorted_keys.shape[0]
    if sorted_keys.shape[0] >= EXACT_ROWS:
        return None
    same("rows of the catalogue's keys", sorted_keys.shape[0], key_order.shape[0])
    if not steps_are_sound(index, <size_t>key_steps.shape[0]):
        raise ValueError("expected steps that lead into the catalogue's keys")
    for found in (last.shape[0], first.shape[0], of_counts.shape[0], of_decayed.shape[0]):
        same("each array of the state", count, found)
    same("decays of the state", kinds, of_decayed.shape[1])
    told_rows, order, now = np.empty(count, np.int32), np.empty(count, np.int64), np.empty(kinds * count, np.float32)
    counts, age, span = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    cdef int32_t[::1] out_rows = told_rows
    cdef int64_t[::1] out_order = order
    cdef float[::1] out_counts = counts, out_age = age, out_span = span, out_now = now
    of.last, of.first, of.taus, of.counts, of.decayed, of.kinds, of.day = (
        &last[0], &first[0], &taus[0], &of_counts[0], &of_decayed[0, 0], <size_t>kinds, day)
    aged.rows, aged.order, aged.counts, aged.age, aged.span, aged.decayed = (
        &out_rows[0], &out_order[0], &out_counts[0], &out_age[0], &out_span[0], &out_now[0])
    known = done(c_history(index, &keys[0], <size_t>count, &of, aged))
    within("rows of the catalogue's keys", out_rows[:known], sorted_keys.shape[0])
    return told_rows[:known], order[:known], counts[:known], age[:known], span[:known], now[: kinds * known].reshape(kinds, known)


cdef Table read_table(const int8_t[:, ::1] rows, const float[::1] vector, const float[::1] scales, const float[::1] prior) except *:
    cdef Table table
    same("numbers of the vector", rows.shape[1], vector.shape[0])
    if (scales is None) != (prior is None):
        raise ValueError("expected scales and priors, or none of both")
    table.rows, table.items, table.width, table.scales, table.prior = &rows[0, 0], <size_t>rows.shape[0], <size_t>rows.shape[1], NULL, NULL
    if scales is not None:
        same("scales", rows.shape[0], scales.shape[0])
        same("priors", rows.shape[0], prior.shape[0])
        table.scales, table.prior = &scales[0], &prior[0]
    return table


def products(const int8_t[:, ::1] rows, const float[::1] vector, const float[::1] scales, const float[::1] prior):
    cdef Table table = read_table(rows, vector, scales, prior)
    found = np.empty(rows.shape[0], np.float32)
    cdef float[::1] out = found
    done(c_products(&table, &vector[0], &out[0]))
    return found


def spans(const int8_t[:, ::1] rows, const float[::1] vector, const float[::1] scales not None, const float[::1] prior not None,
          const int64_t[::1] begins, const int64_t[::1] ends):
    cdef Table table = read_table(rows, vector, scales, prior)
    cdef Py_ssize_t at, size = 0
    same("ends of stretches", begins.shape[0], ends.shape[0])
    for at in range(begins.shape[0]):
        if not 0 <= begins[at] <= ends[at] <= rows.shape[0]:
            raise ValueError(f"expected stretches of a table of {rows.shape[0]} rows, got {begins[at]} to {ends[at]}")
        size += ends[at] - begins[at]
    found = np.empty(size, np.float32)
    cdef float[::1] out = found
    done(c_spans(&table, &vector[0], &begins[0], &ends[0], <size_t>begins.shape[0], &out[0]))
    return found


def search(const int8_t[:, ::1] rows, const float[::1] vector, const float[::1] scales not None, const float[::1] prior not None,
           const uint8_t[::1] marked, Py_ssize_t every, Py_ssize_t n, const int32_t[::1] excluded):
    cdef Table table = read_table(rows, vector, scales, prior)
    cdef Excluded out = barred(excluded, rows.shape[0])
    same("marks", rows.shape[0], marked.shape[0])
    if n < 0 or every < 1:
        raise ValueError(f"expected 0 or more rows and 1 or more places for a marked one, got {n} and {every}")
    values, names, scores = np.empty(rows.shape[0], np.float32), np.empty(n, np.int32), np.empty(n, np.float32)
    cdef float[::1] all_of = values, best = scores
    cdef int32_t[::1] of = names
    found = done(c_search(&table, &vector[0], &marked[0], <size_t>every, <size_t>n, out, &all_of[0], &of[0], &best[0]))
    return names[:found], scores[:found], values


def item_item(table, past, Py_ssize_t limit, Py_ssize_t items, const int32_t[::1] excluded, Py_ssize_t n):
    """`table`: serving.retrieval.linear.Neighbours."""
    cdef const uint16_t[:, ::1] narrow
    cdef const int32_t[:, ::1] wide
    cdef const int16_t[:, ::1] weights = table.weights
    cdef const int32_t[::1] position_of = table.position_of, names = table.rows
    cdef const float[::1] scales = table.scales
    cdef Py_ssize_t size = weights.shape[0], found
    cdef Neighbours of
    cdef Past had = read_past(past, items)
    memset(&of, 0, sizeof(of))
    if table.neighbours.dtype == np.uint16:
        narrow = table.neighbours
        of.narrow = &narrow[0, 0]
    else:
        wide = table.neighbours
        of.wide = &wide[0, 0]
    same("neighbours and their weights", weights.size, table.neighbours.size)
    same("scales", size, scales.shape[0])
    same("rows of the positions", size, names.shape[0])
    if limit < 0 or n < 0:
        raise ValueError(f"expected 0 or more voters and rows, got {limit} and {n}")
    of.weights, of.scales, of.position_of, of.names = &weights[0, 0], &scales[0], &position_of[0], &names[0]
    of.size, of.k, of.items = <size_t>size, <size_t>weights.shape[1], <size_t>position_of.shape[0]
    n = min(n, size)
    sums, rows, scores = np.empty(size, np.float32), np.empty(n, np.int32), np.empty(n, np.float32)
    cdef float[::1] all_of = sums, best = scores
    cdef int32_t[::1] out = rows
    found = c_item_item(&of, &had, <size_t>limit, barred(excluded, size), <size_t>n, &all_of[0], &out[0], &best[0])
    if found == NOBODY:
        return rows[:0], scores[:0], sums[:0]
    done(found)
    return rows[:found], scores[:found], sums


def buy_again(const float[::1] factor, float usual, past, Py_ssize_t items, Py_ssize_t n):
    cdef Past had = read_past(past, items)
    n = min(max(n, 0), <Py_ssize_t>had.had)
    rows, scores = np.empty(n, np.int32), np.empty(n, np.float32)
    cdef int32_t[::1] out = rows
    cdef float[::1] best = scores
    done(c_buy_again(&had, &factor[0], <size_t>factor.shape[0], usual, <size_t>n, &out[0], &best[0]))
    return rows, scores


def history_embedding(table, past, Py_ssize_t items):
    """None where this CPU has no loop for rows of that width."""
    cdef const uint16_t[:, ::1] rows = half(table)
    cdef Past had = read_past(past, items)
    if not embeds_here(<size_t>rows.shape[1]):
        return None
    found = np.empty(rows.shape[1], np.float32)
    cdef float[::1] out = found
    done(c_history_embedding(&rows[0, 0], <size_t>rows.shape[0], <size_t>rows.shape[1], &had, &out[0]))
    return found


cdef Kinds read_kinds(kinds, Py_ssize_t offers) except *:
    cdef const uint16_t[::1] at = kinds.at
    cdef const int32_t[:, ::1] codes = kinds.codes
    cdef Kinds out
    same("kinds", offers, at.shape[0])
    out.at, out.codes, out.groups, out.count = &at[0], &codes[0, 0], <size_t>codes.shape[0], <size_t>codes.shape[1]
    return out


def category_promotion(const int32_t[:, ::1] codes, past, offers, const double[::1] powers, const float[::1] worth, first, second,
                       const int32_t[::1] excluded, Py_ssize_t n):
    """`offers`: serving.retrieval.category_promotion.Offers; `first`, `second`: its Kinds, told in uint16."""
    cdef const float[::1] shares = offers.shares
    cdef const int64_t[::1] ends = offers.share_ends
    cdef const int32_t[::1] names = offers.rows
    cdef Py_ssize_t count = worth.shape[0], group, begin = 0
    cdef Past had = read_past(past, codes.shape[0])
    cdef Offers of
    same("rows of the offers", count, names.shape[0])
    same("groupings", codes.shape[1], ends.shape[0])
    same("powers", codes.shape[1], powers.shape[0])
    for group in range(ends.shape[0]):
        if not begin <= ends[group] <= shares.shape[0]:
            raise ValueError(f"expected ends of groupings that rise to {shares.shape[0]}, got {ends[group]}")
        begin = ends[group]
    if n < 0:
        raise ValueError(f"expected 0 or more rows, got {n}")
    of.codes, of.names, of.shares, of.worth, of.ends, of.powers = &codes[0, 0], &names[0], &shares[0], &worth[0], &ends[0], &powers[0]
    of.groups, of.size, of.offers, of.prior = <size_t>codes.shape[1], <size_t>shares.shape[0], <size_t>count, offers.prior_counts
    of.first, of.second = read_kinds(first, count), read_kinds(second, count)
    n = min(n, count)
    values, rows, scores = np.empty(count, np.float32), np.empty(n, np.int32), np.empty(n, np.float32)
    cdef float[::1] all_of = values, best = scores
    cdef int32_t[::1] out = rows
    found = done(c_category_promotion(&of, &had, barred(excluded, count), <size_t>n, &all_of[0], &out[0], &best[0]))
    return rows[:found], scores[:found], values


cdef Listed read_list(hit, term, Py_ssize_t items) except *:
    """Of a `serving.query.Hits` and its (weight, offset, places promised)."""
    cdef const int32_t[::1] rows = hit.rows, at = hit.position_of
    cdef const float[::1] scores = hit.scores, values = hit.values
    cdef Listed out
    memset(&out, 0, sizeof(out))
    same("scores of a list", rows.shape[0], scores.shape[0])
    within("rows of a list", rows, items)
    out.rows, out.scores, out.listed = &rows[0], &scores[0], <size_t>rows.shape[0]
    if values is not None:
        out.values, out.valued, out.known = &values[0], <size_t>values.shape[0], <size_t>values.shape[0]
        if at is not None:
            out.at, out.known = &at[0], <size_t>at.shape[0]
    weight, offset, promised = term
    out.weight, out.offset, out.promised = weight, offset, max(promised, 0)
    return out


def fuse(hits, terms, const int32_t[::1] history, Py_ssize_t items, Py_ssize_t pool, const uint8_t[::1] flags, unsigned barring):
    cdef Listed lists[MOST_SOURCES]
    cdef Lists of
    cdef Pooled out
    cdef Py_ssize_t sources = len(hits), source, listed = 0, promised = 0, most, size
    if not 1 <= sources <= MOST_SOURCES or pool < 0:
        raise ValueError(f"expected 1 to {MOST_SOURCES} sources and a pool of 0 or more, got {sources} and {pool}")
    for source in range(sources):
        lists[source] = read_list(hits[source], terms[source], items)
        listed += <Py_ssize_t>lists[source].listed
        promised += <Py_ssize_t>lists[source].promised
    if listed > MOST_LISTED:
        return None
    within("rows of the history", history, items)
    of.lists, of.history, of.flags, of.barring = lists, &history[0], NULL, barring
    of.sources, of.had, of.pool, of.listed, of.items = (
        <size_t>sources, <size_t>history.shape[0], <size_t>pool, <size_t>listed, <size_t>items)
    if flags is not None:
        same("flags", items, flags.shape[0])
        of.flags = &flags[0]
    most = min(listed, max(pool, promised))  # a pool may be kept, with all the room it was given
    rows, fused, seen = np.empty(most, np.int32), np.empty(most, np.float32), np.empty(most, np.bool_)
    ranks, scores = np.empty((most, sources), np.float32), np.empty((most, sources), np.float32)
    cdef int32_t[::1] out_rows = rows
    cdef float[::1] out_fused = fused
    cdef float[:, ::1] out_ranks = ranks, out_scores = scores
    cdef uint8_t[::1] out_seen = seen
    out.rows, out.fused, out.ranks, out.scores, out.seen = (
        &out_rows[0], &out_fused[0], &out_ranks[0, 0], &out_scores[0, 0], &out_seen[0])
    size = done(c_fuse(&of, out))
    return rows[:size], fused[:size], ranks[:size], scores[:size], seen[:size]


def features(catalogue, past, session, pool, plans, told):
    """Of a `Catalogue`, `History` and `Candidates`; `told`: serving.native.kernel.Told."""
    cdef const int32_t[:, ::1] labels = catalogue.labels
    cdef const int32_t[::1] had = past.rows, clicked = session[0], rows = pool.rows
    cdef const float[::1] counts = past.counts, age = past.age, span = past.span, weights = session[1], fused = pool.fused
    cdef const float[:, ::1] decayed = past.decayed, ranks = pool.source_ranks, scores = pool.source_scores
    cdef const uint8_t[::1] seen = pool.seen, display = plans[0], mailer = plans[1]
    cdef Py_ssize_t items = labels.shape[0], count = rows.shape[0], sources = scores.shape[1]
    cdef World world
    cdef User user
    cdef Pool of
    memset(&user, 0, sizeof(user))
    same("labels of an item", LEVELS + 3, labels.shape[1])
    for found in (counts.shape[0], age.shape[0], span.shape[0], decayed.shape[1]):
        same("each array of the history", had.shape[0], found)
    same("decays of the history", TAUS, decayed.shape[0])
    same("weights of the session", clicked.shape[0], weights.shape[0])
    for found in (seen.shape[0], fused.shape[0], ranks.shape[0], scores.shape[0]):
        same("each array of the candidates", count, found)
    same("ranks of a candidate", sources, ranks.shape[1])
    within("rows of the history", had, items)
    within("rows of the session", clicked, items)
    within("rows of candidates", rows, items)
    if sources > MOST_SOURCES or not 0 <= told.taste < TAUS or not 0 <= told.recent < TAUS:
        raise ValueError(f"expected at most {MOST_SOURCES} sources and places of two of {TAUS} decays")
    world.items, world.count, world.pairs = <const Item *>&labels[0, 0], <size_t>items, <size_t>catalogue.pairs
    world.categories, world.brands = <size_t>len(catalogue.category_names), <size_t>len(catalogue.brand_names)
    user.history, user.clicked, user.counts, user.age, user.span = &had[0], &clicked[0], &counts[0], &age[0], &span[0]
    user.decayed, user.session, user.had, user.events = &decayed[0, 0], &weights[0], <size_t>had.shape[0], <size_t>clicked.shape[0]
    user.taste, user.recent, user.never, user.limit = told.taste, told.recent, told.never, told.limit
    of.rows, of.fused, of.ranks, of.scores, of.seen = &rows[0], &fused[0], &ranks[0, 0], &scores[0, 0], &seen[0]
    of.display, of.mailer, of.count, of.sources, of.relative, of.offset = NULL, NULL, <size_t>count, <size_t>sources, told.relative, told.offset
    if display is not None and mailer is not None:
        same("plans of a display", items, display.shape[0])
        same("plans of a mailer", items, mailer.shape[0])
        of.display, of.mailer = &display[0], &mailer[0]
    out = np.empty((count, features_width(<size_t>sources)), np.float32)
    cdef float[:, ::1] to = out
    done(c_features(&world, &user, &of, &to[0, 0]))
    return out


def rank(layers, halves, const int32_t[::1] rows, const int32_t[::1] at, const float[::1] user, const float[:, ::1] cross):
    """`layers`: serving.ranking.layers.Layers. None where this CPU has no loop, or the layers are larger than it holds."""
    cdef const uint16_t[:, ::1] table = half(halves)
    cdef const float[::1] mean = layers.mean, scale = layers.scale, panels = layers.panels
    cdef const int64_t[::1] sizes = layers.sizes
    cdef Ranker of
    cdef Py_ssize_t numbers = panels_of(&sizes[0], <size_t>(sizes.shape[0] - 1)) if sizes.shape[0] > 1 else OUTSIDE
    if not ranks_here() or numbers == OUTSIDE:
        return None
    same("weights of the layers", numbers, panels.shape[0])
    for found in (mean.shape[0], scale.shape[0], cross.shape[1]):
        same("each array over the cross features", sizes[0], found)
    for found in (table.shape[1], user.shape[0]):
        same("each half", sizes[1], found)
    same("rows of cross features", rows.shape[0], cross.shape[0])
    within("rows of candidates", rows, table.shape[0])
    of.halves, of.rows, of.at, of.user, of.cross, of.mean, of.scale = &table[0, 0], &rows[0], NULL, &user[0], &cross[0, 0], &mean[0], &scale[0]
    of.panels, of.sizes, of.clip, of.count, of.layers = &panels[0], &sizes[0], layers.clip, <size_t>rows.shape[0], <size_t>(sizes.shape[0] - 1)
    if at is not None:
        within("positions of candidates", at, rows.shape[0])
        of.at, of.count = &at[0], <size_t>at.shape[0]
    out = np.empty((of.count, sizes[sizes.shape[0] - 1]), np.float32)
    cdef float[:, ::1] to = out
    done(rank_candidates(&of, &to[0, 0]))
    return out


def final_scores(const float[:, ::1] logits, const uint8_t[::1] seen, const float[::1] lifts, heads, const int32_t[::1] at):
    """`heads`: serving.ranking.heads.Heads."""
    cdef const double[::1] weights = heads.weights, floors = heads.floors
    cdef const uint8_t[:, ::1] judges = heads.judges
    cdef Heads of
    cdef Py_ssize_t count = seen.shape[0] if at is None else at.shape[0]
    same("logits", count, logits.shape[0])
    for found in (logits.shape[1], floors.shape[0], judges.shape[1]):
        same("heads", weights.shape[0], found)
    same("rows of what heads judge", 2, judges.shape[0])
    if lifts is not None:
        same("lifts", seen.shape[0], lifts.shape[0])
    if at is not None:
        within("positions of candidates", at, seen.shape[0])
    out = np.empty(count, np.float32)
    cdef float[::1] to = out
    of.weights, of.floors, of.judges, of.count = &weights[0], &floors[0], &judges[0, 0], <size_t>weights.shape[0]
    done(c_final_scores(&logits[0, 0], &seen[0], NULL if lifts is None else &lifts[0], NULL if at is None else &at[0], <size_t>count,
                        of, &to[0]))
    return out


def first_page(const int32_t[::1] rows, const float[::1] scores, const uint8_t[::1] left_out, const uint8_t[::1] flags, unsigned bits, caps, floors,
               Py_ssize_t size):
    cdef const int32_t[::1] codes
    cdef const uint8_t[::1] new
    cdef Cap of_caps[MOST_RULES]
    cdef Floor of_floors[MOST_RULES]
    cdef Met met[MOST_RULES]
    cdef Walk walk
    cdef Py_ssize_t number, place
    same("scores", rows.shape[0], scores.shape[0])
    within("ranked rows", rows, flags.shape[0])
    if not 0 <= size <= PAGE or len(caps) > MOST_RULES or len(floors) > MOST_RULES:
        return None
    for number, (column, most) in enumerate(caps):
        codes = column
        same("codes of a cap", flags.shape[0], codes.shape[0])
        of_caps[number].codes, of_caps[number].most = &codes[0], most
    for number, (column, least) in enumerate(floors):
        new = column
        same("items of a floor", flags.shape[0], new.shape[0])
        of_floors[number].new, of_floors[number].least = &new[0], <size_t>max(least, 0)
    memset(&walk, 0, sizeof(walk))
    walk.rows, walk.caps, walk.count, walk.cap_count, walk.wanted = &rows[0], of_caps, <size_t>rows.shape[0], <size_t>len(caps), <size_t>size
    if left_out is not None:
        same("marks", rows.shape[0], left_out.shape[0])
        walk.left_out = &left_out[0]
    if not c_first_page(&walk, &flags[0], bits, of_floors, met, <size_t>len(floors)):
        return None
    chosen, worth = np.empty(size, np.int32), np.empty(size, np.float32)
    cdef int32_t[::1] out = chosen
    cdef float[::1] best = worth
    for place in range(size):
        out[place], best[place] = rows[walk.page[place]], scores[walk.page[place]]
    skipped = tuple([tuple([rows[walk.skipped[place]] for place in range(<Py_ssize_t>walk.skips) if walk.by[place] == number])
                     for number in range(len(caps))])
    added = tuple([(tuple([rows[met[number].added[place]] for place in range(<Py_ssize_t>met[number].count)]), <Py_ssize_t>met[number].lacking)
                   for number in range(len(floors))])
    return chosen, worth, skipped, added


def provenance(const int32_t[::1] pool, const float[:, ::1] ranks, const int32_t[::1] history, const int32_t[::1] rows):
    cdef Py_ssize_t place, at, low, high, middle
    cdef int32_t row
    same("ranks", pool.shape[0], ranks.shape[0])
    told = []
    for place in range(rows.shape[0]):
        row, at, low, high = rows[place], 0, 0, history.shape[0]
        while at < pool.shape[0] and pool[at] != row:
            at += 1
        while low < high:
            middle = (low + high) // 2
            if history[middle] < row:
                low = middle + 1
            else:
                high = middle
        had = low if low < history.shape[0] and history[low] == row else -1
        pooled = at < pool.shape[0]
        told.append((by_rank(ranks[at]) if pooled else None, at if pooled else -1, had))
    return told


cdef tuple by_rank(const float[::1] ranks):
    """Sources in the order of their finite ranks, ties by source."""
    cdef Py_ssize_t source
    found = [(ranks[source], source) for source in range(ranks.shape[0]) if ranks[source] < float("inf")]
    found.sort()
    return tuple([number for _, number in found])


def user_side(features, standard, layers, bag):
    """`standard`, `layers`: serving.ranking.user_side.Standard and UserLayers. None where this CPU has no loop."""
    cdef const float[::1] asked = features, mean = standard.mean, scale = standard.scale, log_mean = standard.log_mean, log_scale = standard.log_scale
    cdef const float[::1] own_mean = standard.own_mean, own_spread = standard.own_spread, bias = layers.bias, own_bias = layers.own_bias
    cdef const float[::1] top_bias = layers.top_bias, had = bag
    cdef const float[:, ::1] first = layers.first, second = layers.second, own = layers.own, top = layers.top, bags = layers.bag
    cdef Py_ssize_t width = mean.shape[0], halves = second.shape[1], dimensions = top_bias.shape[0]
    cdef Standard s
    cdef UserLayers l
    if not sides_here():
        return None
    for found in (scale.shape[0], log_mean.shape[0], log_scale.shape[0]):
        same("each array of the features' standard", width, found)
    same("spreads", own_mean.shape[0], own_spread.shape[0])
    for what, expected, found in (
        ("inputs of the first layer", 3 * width, first.shape[0]), ("its outputs", bias.shape[0], first.shape[1]),
        ("inputs of the second layer", bias.shape[0] - halves, second.shape[0]), ("outputs of the tower's layer", own_bias.shape[0], own.shape[1]),
        ("its inputs", own_mean.shape[0], own.shape[0]), ("inputs of the tower's top", own_bias.shape[0], top.shape[0]),
        ("its outputs", dimensions, top.shape[1]), ("inputs of the bag", dimensions, bags.shape[0]), ("its outputs", dimensions, bags.shape[1]),
        ("numbers of the bag", dimensions, 0 if had is None else had.shape[0]),
    ):
        same(what, expected, found)
    if asked.shape[0] > width or own_mean.shape[0] > width or max(4 * width, bias.shape[0], own_bias.shape[0], dimensions) > WIDEST_SIDE:
        raise ValueError(f"expected at most {width} features and layers of at most {WIDEST_SIDE}, got {asked.shape[0]} features")
    s.mean, s.scale, s.log_mean, s.log_scale = &mean[0], &scale[0], &log_mean[0], &log_scale[0]
    s.own_mean, s.own_spread, s.width, s.own, s.clip = &own_mean[0], &own_spread[0], <size_t>width, <size_t>own_mean.shape[0], standard.clip
    l.first, l.bias, l.second, l.own, l.own_bias = &first[0, 0], &bias[0], &second[0, 0], &own[0, 0], &own_bias[0]
    l.top, l.top_bias, l.bag = &top[0, 0], &top_bias[0], &bags[0, 0]
    l.all, l.halves, l.hidden, l.dimensions = <size_t>bias.shape[0], <size_t>halves, <size_t>own_bias.shape[0], <size_t>dimensions
    both, vector = np.empty(halves, np.float32), np.empty(dimensions, np.float32)
    cdef float[::1] out = both, out_vector = vector
    c_user_side(&s, &l, &asked[0], <size_t>asked.shape[0], NULL if had is None else &had[0], &out[0], &out_vector[0])
    return both, vector
