"""The method, one idea a file. Where every numbered equation is, and which test compares it with another version:

===  =================  ====================================  =======================================================
no.  equation           code, in topdown/model                test, in tests
===  =================  ====================================  =======================================================
1    attention          slot_attention.py:SlotAttention.step  test_slots.py::test_equals_reference
2    weights            slot_attention.py:SlotAttention.step  test_slots.py::test_equals_reference
3    what is collected  slot_attention.py:SlotAttention.step  test_slots.py::test_equals_reference
4    update of a slot   slot_attention.py:SlotAttention.step  test_slots.py::test_equals_reference
5    nearest code       codebook.py:Codebook.assign           test_codebook.py::test_equals_reference
6    moving averages    codebook.py:Codebook.update           test_codebook.py::test_equals_reference
7    straight-through   codebook.py:Codebook.forward          test_codebook.py::test_gradient_passes_straight_through
8    perplexity         codebook.py:perplexity                test_codebook.py::test_perplexity_counts_codes_in_use
9    channel scale      modulation.py:Modulation.forward      test_slots.py::test_scales_by_code_equal_hand_formulas
10   spatial scale      modulation.py:Modulation.forward      test_slots.py::test_shifted_scale_has_mean_one
11   modulation map     slot_attention.py:SlotAttention.step  test_slots.py::test_equals_reference
12   modulated sum      slot_attention.py:SlotAttention.step  test_slots.py::test_equals_reference
13   queries and units  slot_attention.py:SlotAttention.step  test_slots.py::test_equals_reference
14   position           pixels.py:SoftPosition                test_pixels.py::test_position_equals_the_hand_formula
15   stem               pixels.py:PixelStem                   test_pixels.py::test_stem_equals_its_parts_in_a_row
16   spatial broadcast  pixels.py:SpatialBroadcastDecoder     test_pixels.py::test_decoder_equals_a_naive_one
===  =================  ====================================  =======================================================

The equations themselves stand at the head of each file. The map of (11) is never made, but for the test.
"""
